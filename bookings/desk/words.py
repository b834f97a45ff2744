"""Times, people and events in words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

from django.utils.dateformat import format as formatted
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from bookings.models import Booking, BookingEvent

Type = BookingEvent.Type
ONE_DAY = timedelta(days=1)

# The names of the details in an event of the type `booking.changed`.
DETAILS = {
    "attendee_name": gettext_lazy("the name"),
    "attendee_email": gettext_lazy("the email address"),
    "attendee_phone": gettext_lazy("the phone number"),
    "notes": gettext_lazy("the customer's notes"),
}

# What `overridden` in an event means: the codes are those of the errors that were not raised.
OVERRIDDEN = {
    "too_soon": gettext_lazy("The minimum notice of the service was overridden."),
    "too_far_ahead": gettext_lazy("The booking horizon of the service was overridden."),
}


def day(value: date) -> str:
    """Return a day in words: `Tue 1 Dec 2026`."""
    return formatted(value, "D j M Y")


def clock(local: datetime) -> str:
    """Return the time of day, with the zone's abbreviation if it occurs twice on that day."""
    shown_twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    return formatted(local, "H:i T" if shown_twice else "H:i")


def moment(at: datetime, tz: tzinfo) -> str:
    """Return a time in words: `Tue 1 Dec 2026, 10:00`."""
    local = at.astimezone(tz)
    return f"{day(local)}, {clock(local)}"


def period(start_time: datetime, end_time: datetime, tz: tzinfo) -> str:
    """Return a period in words: `Tue 1 Dec 2026, 10:00-10:30`, with an en dash."""
    start, end = start_time.astimezone(tz), end_time.astimezone(tz)
    if start.date() == end.date():
        return f"{day(start)}, {clock(start)}\N{EN DASH}{clock(end)}"
    return f"{moment(start, tz)} \N{EN DASH} {moment(end, tz)}"


def differs(one: tzinfo, other: tzinfo, at: datetime) -> bool:
    """Return whether clocks in two zones show different times at a moment."""
    return at.astimezone(one).utcoffset() != at.astimezone(other).utcoffset()


def person(user: User) -> str:
    """Return the name of a user, which is empty if the user has deleted their account."""
    return user.name or (_("a former user") if user.deleted_at else user.email)


@dataclass(frozen=True)
class Entry:
    """An event of a booking in words.

    Args:
        by: who caused it; empty if it happened automatically.
        reason: what was given as the reason; empty if nothing was.
        remark: a sentence about the limit that staff have overridden; empty if there is none.
    """

    at: datetime
    type: str
    text: str
    by: str
    reason: str
    remark: str = ""

    @property
    def kind(self) -> str:
        """The last part of the type, for example `cancelled`."""
        return self.type.rpartition(".")[2]


def entries(
    events: Iterable[BookingEvent], *, booking: Booking, keys: Mapping[UUID, str], tz: tzinfo
) -> list[Entry]:
    """Return the history of a booking in words.

    Args:
        events: the events, with their actors.
        keys: the names of API keys by id. A key that was deleted has no name.
        tz: the zone of the times in the texts.
    """
    return [
        Entry(
            at=event.at,
            type=event.type,
            text=_text(event, tz),
            by=_by(event, booking, keys),
            reason=_reason(event, booking),
            remark=str(OVERRIDDEN.get(event.data.get("overridden", ""), "")),
        )
        for event in events
    ]


def _reason(event: BookingEvent, booking: Booking) -> str:
    reason: str = event.data.get("reason", "")
    if not reason and event.type == Type.CANCELLED:
        # The reason that the user of a booking gave is stored only in the booking.
        reason = booking.cancellation_reason
    return reason


def _by(event: BookingEvent, booking: Booking, keys: Mapping[UUID, str]) -> str:
    actor = event.actor
    if actor is None:
        return ""
    words = {"name": person(actor)}
    name = _("%(name)s (customer)") % words if actor.pk == booking.user_id else words["name"]
    if event.api_key_id is None:
        return name
    key = keys.get(event.api_key_id)
    if key is None:
        return _("%(name)s, with an API key that was deleted") % {"name": name}
    return _("%(name)s, with the API key \u201c%(key)s\u201d") % {"name": name, "key": key}


def _text(event: BookingEvent, tz: tzinfo) -> str:
    state: dict[str, Any] = event.data
    was: dict[str, Any] = state.get("was", {})
    words = {
        "start": _stored(state.get("start_time"), tz),
        "before": _stored(was.get("start_time"), tz),
        "until": _stored(state.get("hold_expires_at"), tz),
        "rating": state.get("rating"),
        "what": ", ".join(str(DETAILS.get(each, each)) for each in state.get("changed", [])),
    }
    return _sentence(event.type, state, was) % words


def _sentence(kind: str, state: Mapping[str, Any], was: Mapping[str, Any]) -> str:
    """Return the sentence for an event, with the names of words to insert."""
    is_pending = state.get("status") == Booking.Status.PENDING
    if kind == Type.HELD:
        if state.get("waitlist"):
            return _("A seat was offered from the waitlist until %(until)s")
        return _("Held until %(until)s")
    if kind == Type.CREATED:
        if is_pending:
            return _("Requested for %(start)s")
        return _("Booked for %(start)s")
    if kind == Type.RESCHEDULED:
        if was.get("start_time") == state.get("start_time"):
            return _("Moved to another slot at %(start)s")
        return _("Moved from %(before)s to %(start)s")
    if kind == Type.CHANGED:
        return _("Changed %(what)s")
    if kind == Type.EXPIRED:
        if was.get("status") == Booking.Status.PENDING:
            return _("Expired, because nobody confirmed it before the start")
        return _("The hold expired")
    if kind == Type.COMPLETED and was.get("status") == Booking.Status.NO_SHOW:
        return _("Corrected from no-show to completed")
    if kind == Type.NO_SHOW and was.get("status") == Booking.Status.COMPLETED:
        return _("Corrected from completed to no-show")
    sentences: dict[str, str] = {
        Type.CONFIRMED: _("Confirmed"),
        Type.CANCELLED: _("Cancelled"),
        Type.COMPLETED: _("Marked as completed"),
        Type.NO_SHOW: _("Marked as no-show"),
        Type.DELETED: _("Deleted"),
        Type.REMINDED: _("Reminder for %(start)s"),
        Type.REVIEWED: _("Reviewed with %(rating)s of 5 stars"),
    }
    return sentences.get(kind, kind.replace("%", "%%"))


def _stored(value: str | None, tz: tzinfo) -> str:
    """Return a time that is stored in an event in words."""
    if not value:
        return ""
    at = datetime.fromisoformat(value)
    return moment(at if at.tzinfo else at.replace(tzinfo=UTC), tz)
