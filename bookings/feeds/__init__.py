"""Bookings in calendar programs: files and feeds."""
