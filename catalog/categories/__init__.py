"""The categories of services, and how many services each has."""
