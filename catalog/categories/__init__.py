"""The categories of services, and the number of active services in each category."""
