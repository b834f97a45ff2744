"""Emails about bookings."""
