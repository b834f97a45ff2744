"""The pages of the admin site on which staff work with bookings, and the notes that they write."""
