"""The statuses that may follow each status of a booking."""

# Providers, admins and staff may make all of these changes. Owners may only cancel a booking or
# turn a hold into a booking. The keys and values are those of `Booking.Status`. This module cannot
# import `Booking`, because the model imports the trigger that enforces this table.
TRANSITIONS: dict[str, frozenset[str]] = {
    "held": frozenset({"pending", "confirmed", "cancelled", "expired"}),
    "pending": frozenset({"confirmed", "cancelled", "expired", "completed", "no_show"}),
    "confirmed": frozenset({"completed", "cancelled", "no_show"}),
    "completed": frozenset({"no_show"}),
    "no_show": frozenset({"completed"}),
    "cancelled": frozenset(),
    "expired": frozenset(),
}

# These statuses say whether the customer came, which is known only after the start. The admin site
# and imports refuse these statuses before the start. Clients of the API may set them earlier.
AFTER_START = frozenset({"completed", "no_show"})
