"""Mails about bookings."""
