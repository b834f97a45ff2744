"""The commands of the app `bookings`."""
