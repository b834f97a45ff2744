"""Turns: many bookings can share a calendar, but a change needs the calendar alone.

Row locks alone cannot ensure that a change gets its turn. Bookings lock the row of their calendar
FOR KEY SHARE. PostgreSQL grants that lock at once while other bookings hold it, even if a change is
waiting for FOR UPDATE. So the change would wait as long as the transactions of bookings overlap.
Advisory locks have a queue: a change waits only for the bookings that came before it, and later
bookings wait for the change.

Changes of bookings, slots and waitlists share a turn, and a change of the calendar takes a turn
alone. A turn ends with its transaction. Two rules prevent deadlocks:

- A transaction takes its turn before it locks a calendar or one of its slots.
- A transaction that shares a turn never takes a turn alone.

The triggers on opening hours, time off and the terms of services take a turn alone before they
raise the version of the calendar, so raw SQL that makes such a change also waits for its turn.
"""

from uuid import UUID

from django.db.models import BooleanField, Func, UUIDField, Value


def _turn(function: str, calendar: UUID) -> Func:
    # Never pass a column: PostgreSQL could then take the turns of rows that it reads but does not
    # return.
    expression = Value(calendar, output_field=UUIDField())
    return Func(expression, function=function, output_field=BooleanField())


def shared(calendar: UUID) -> Func:
    """Return a condition with which a query shares a calendar's turn before it locks rows."""
    return _turn("calendar_share_turn", calendar)


def alone(calendar: UUID) -> Func:
    """Return a condition with which a query takes a calendar's turn alone before it locks rows."""
    return _turn("calendar_take_turn", calendar)
