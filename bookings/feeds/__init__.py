"""Calendar files and feeds, which show bookings in calendar programs."""
