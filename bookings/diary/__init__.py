"""The diary: the bookings, slots and closed times of calendars, as a page of the admin site."""
