"""Imports services, calendars, customers and bookings from CSV files."""
