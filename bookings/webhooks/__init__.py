"""Webhooks, their deliveries, and the feed of events."""
