"""SQL functions that book, or lock a calendar, on its server, if Citus distributes the database.

Citus would split the statement that books into several statements over the network, with a
two-phase commit. A function runs on the server that has the rows of the calendar, in one
transaction of that server. The functions that book contain SQL fragments of `bookings/seats.py`.
"""

from bookings import seats
from bookings.events import STATE_COLUMNS, state_of
from bookit.database.citus.extensions import CALENDAR_FUNCTIONS, CalendarFunction

# The parameters that `_BOOK` reads from its argument `p`, with their types. Those of the type jsonb
# are in `_DOCUMENTS`. `calendar_id` is an argument of its own.
_TYPES = {
    **dict.fromkeys(["id", "user_id", "service_id", "slot_id", "occupant"], "uuid"),
    **dict.fromkeys(["start_time", "end_time", "blocked_from", "blocked_until"], "timestamptz"),
    **dict.fromkeys(["attendee_name", "attendee_email", "attendee_phone", "language"], "text"),
    "capacity": "int",
    "version": "bigint",
    "status": "text",
    "notes": "text",
    "price": "numeric",
    "currency": "text",
    "hold_expires_at": "timestamptz",
    "event": "text",
    "actor_id": "uuid",
    "api_key_id": "uuid",
    "at": "timestamptz",
}
_DOCUMENTS = ("metadata", "more")
# For each parameter of the SQL fragments, the PL/pgSQL variable that replaces it.
_VARIABLES = {name: f"the_{name}" for name in ["calendar_id", *_TYPES, *_DOCUMENTS]}
_DECLARED = "\n".join(
    [
        *(f"    the_{name} {kind} := p ->> '{name}';" for name, kind in _TYPES.items()),
        *(f"    the_{name} jsonb := p -> '{name}';" for name in _DOCUMENTS),
    ]
)


# Books the lowest free seat, and writes the event. `_function` fills in {place} and {more}.
#
# Parameters: calendar_id uuid, p jsonb (the parameters of CREATE_IN_SERVICE or CREATE_IN_SLOT in
#   `bookings.seats`).
# Columns: the fields of `Attempt`; no row if no seat is free or the slot was cancelled.
# Invariant: as in CREATE_IN_SERVICE or CREATE_IN_SLOT. The function locks this server's own copy of
#   the calendar. A change of the terms (see `bookings.availability.terms`) updates the version in
#   all copies, so the change waits for this lock.
_BOOK = f"""
#variable_conflict use_column
DECLARE
    the_calendar_id uuid := $1;
{_DECLARED}
    booking record;
BEGIN
    WITH {{place}}, {seats.FREE_SEAT} SELECT free.seat INTO seat FROM free;
    IF seat IS NULL THEN
        RETURN;
    END IF;
    PERFORM calendar_share_turn(the_calendar_id);
    PERFORM FROM catalog_calendar
    WHERE id = the_calendar_id AND version = the_version FOR KEY SHARE;
    on_terms := FOUND;
    taken := false;
    IF on_terms THEN
        INSERT INTO bookings_booking ({seats.BOOKING_COLUMNS})
        VALUES ({seats.BOOKING_VALUES})
        ON CONFLICT DO NOTHING
        RETURNING {", ".join(STATE_COLUMNS)} INTO booking;
        taken := FOUND;
    END IF;
    IF taken THEN
        INSERT INTO bookings_bookingevent
            (calendar_id, booking_id, type, actor_id, api_key_id, at, data)
        VALUES (the_calendar_id, the_id, the_event, the_actor_id, the_api_key_id, the_at,
            jsonb_build_object({state_of("booking")}){{more}});
        behind_hold := false;
    ELSE
        SELECT count(*) > 0 INTO behind_hold FROM {seats.EXPIRED_HOLDS};
    END IF;
    RETURN NEXT;
END
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Locks the calendar, as `bookings.seats.lock_to_book` does if the database is not distributed.
#
# Parameters: calendar_id uuid, p jsonb (not used).
# Columns: is_locked boolean; false if there is no such calendar.
_LOCK = """
BEGIN
    PERFORM calendar_share_turn($1);
    PERFORM FROM catalog_calendar WHERE id = $1 FOR NO KEY UPDATE;
    is_locked := FOUND;
    RETURN NEXT;
END
"""

_COLUMNS = "seat int, on_terms boolean, taken boolean, behind_hold boolean"


def _function(place: str, more: str) -> CalendarFunction:
    text = _BOOK.replace("{place}", place).replace("{more}", more)
    return CalendarFunction(_COLUMNS, text % _VARIABLES)


CALENDAR_FUNCTIONS.add("lock_to_book")(CalendarFunction("is_locked boolean", _LOCK))
CALENDAR_FUNCTIONS.add("book_in_service")(_function(seats.PLACE_IN_SERVICE, ""))
CALENDAR_FUNCTIONS.add("book_in_slot")(_function(seats.PLACE_IN_SLOT, " || the_more"))
