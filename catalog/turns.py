"""Turns: a calendar is changed by one at a time and booked by many, and each gets a turn.

Rows alone cannot arrange this. PostgreSQL grants FOR KEY SHARE, by which bookings hold on to their
calendar's version, at once to whoever comes while others hold it. As long as bookings overlap, a
change that waits for FOR UPDATE waits without end. PostgreSQL's locks that are not on rows have a
queue: a change waits only for the bookings that came before it, and later ones wait for the change.

Bookings share a turn, and whoever changes the calendar takes one alone; the turn ends with the
transaction. Two rules prevent deadlocks:

- Whoever locks a calendar or one of its slots takes part in a turn first.
- Nobody who shares a turn takes one alone in the same transaction.

The triggers that raise the version take a turn as well, so that raw SQL has to wait, too.
"""

from uuid import UUID

from django.db.models import BooleanField, Func, QuerySet, Subquery, UUIDField, Value


def _turn(function: str, calendar: "UUID | QuerySet") -> Func:
    # Never a column: PostgreSQL could then take turns of rows that it only looks at.
    expression = (
        Subquery(calendar, output_field=UUIDField())
        if isinstance(calendar, QuerySet)
        else Value(calendar, output_field=UUIDField())
    )
    return Func(expression, function=function, output_field=BooleanField())


def shared(calendar: "UUID | QuerySet") -> Func:
    """Return the condition that shares a turn of a calendar, before the rows are locked.

    Args:
        calendar: its id, or a query of its id.
    """
    return _turn("calendar_share_turn", calendar)


def alone(calendar: UUID) -> Func:
    """Return the condition that takes a turn of a calendar alone, before the rows are locked."""
    return _turn("calendar_take_turn", calendar)
