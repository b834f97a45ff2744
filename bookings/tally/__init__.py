"""Counts how often bookings reach each status, and how often a requested seat is not free."""
