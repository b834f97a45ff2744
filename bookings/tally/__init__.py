"""How many bookings have reached each status, and how many requests lost a seat to another."""
