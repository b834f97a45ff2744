"""Reports: numbers about the bookings of a period, in the API and in the admin site."""
