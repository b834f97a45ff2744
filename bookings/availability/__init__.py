"""The search for free times, and the terms on which services are booked."""
