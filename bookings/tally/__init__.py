"""Counts how often bookings reach each status, and how often a seat is already taken."""
