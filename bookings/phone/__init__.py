"""Booking for a customer who calls: one page of the admin site, and the steps of such a call."""
