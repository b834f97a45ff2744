"""Webhooks, their deliveries, and the event feed."""
