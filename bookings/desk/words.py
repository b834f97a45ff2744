"""Times, people and events in words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Any
from uuid import UUID

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from bookings.availability.terms import TooFarAhead, TooSoon
from bookings.events import SLOT_CANCELLED
from bookings.models import Booking, BookingEvent
from bookit.times import time_of_day

Type = BookingEvent.Type

# The details that an event of the type `booking.changed` can name, in words.
DETAILS = {
    "attendee_name": gettext_lazy("name"),
    "attendee_email": gettext_lazy("email address"),
    "attendee_phone": gettext_lazy("phone number"),
    "language": gettext_lazy("language of emails"),
    "notes": gettext_lazy("customer's notes"),
}


def day(value: date, *, beside: date | None = None) -> str:
    """Return a day in words: `Tue 1 Dec 2026`, without the year if `beside` is in the same year."""
    same_year = beside is not None and beside.year == value.year
    return date_format(value, "DAY_OF_YEAR_FORMAT" if same_year else "DAY_FORMAT")


def moment(at: datetime, tz: tzinfo, *, beside: datetime | None = None) -> str:
    """Return a time in words: `Tue 1 Dec 2026, 10:00`.

    Args:
        beside: another time that is shown. If `at` is in the same year, the text leaves out the
            year.
    """
    local = at.astimezone(tz)
    return f"{day(local, beside=beside and beside.astimezone(tz))}, {time_of_day(local)}"


def period(
    start_time: datetime, end_time: datetime, tz: tzinfo, *, beside: datetime | None = None
) -> str:
    """Return a period in words: `Tue 1 Dec 2026, 10:00-10:30`, with an en dash.

    Args:
        beside: another time that is shown. The text leaves out the year of a start or end in the
            same year.
    """
    start, end = start_time.astimezone(tz), end_time.astimezone(tz)
    first = moment(start, tz, beside=beside)
    if start.date() == end.date():
        return f"{first}\N{EN DASH}{time_of_day(end)}"
    return f"{first} \N{EN DASH} {moment(end, tz, beside=beside)}"


def title(booking: Booking) -> str:
    """Return what is booked, and for whom."""
    return f"{booking.service.title}, {booking.customer()}"


@dataclass(frozen=True)
class Entry:
    """An event of a booking in words.

    Args:
        text: what happened and who caused it, as one sentence.
        is_automatic: whether no user caused the event.
        notes: the limit that staff overrode, if any, and the reason of the change, if any.
    """

    at: datetime
    type: str
    text: str
    is_automatic: bool
    notes: list[str]

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
        keys: the names of API keys by id, without keys that were deleted.
        tz: the zone of the times in the texts.
    """
    return [
        Entry(
            at=event.at,
            type=event.type,
            text=_with_actor(sentence(event, tz), event, booking, keys),
            is_automatic=event.actor is None,
            notes=[each for each in (_override(event), _reason(event, booking)) if each],
        )
        for event in events
    ]


def reason(stored: str) -> str:
    """Return the reason of a cancellation. BookIt's own reason is translated."""
    return _("The slot was cancelled.") if stored == SLOT_CANCELLED else stored


def _reason(event: BookingEvent, booking: Booking) -> str:
    stored: str = event.data.get("reason", "")
    if not stored and event.type == Type.CANCELLED:
        # The reason that the user of a booking gave is stored only in the booking.
        stored = booking.cancellation_reason
    return reason(stored)


def _override(event: BookingEvent) -> str:
    overridden: str = event.data.get("overridden", "")
    if overridden == TooSoon.code:
        return _("At shorter notice than the service allows.")
    if overridden == TooFarAhead.code:
        return _("Further ahead than the service allows.")
    return ""


def _with_actor(text: str, event: BookingEvent, booking: Booking, keys: Mapping[UUID, str]) -> str:
    """Return what happened, with the name of the user who caused it."""
    actor = event.actor
    if actor is None:
        return text
    name = actor.in_words()
    if actor.pk == booking.user_id:
        name = _("%(name)s (customer)") % {"name": name}
    words = {"event": text, "name": name, "key": event.api_key_id and keys.get(event.api_key_id)}
    if event.api_key_id is None:
        return _("%(event)s by %(name)s") % words
    if words["key"] is None:
        return _("%(event)s by %(name)s, by an API key that was deleted") % words
    return _("%(event)s by %(name)s, by API key \u201c%(key)s\u201d") % words


def sentence(event: BookingEvent, tz: tzinfo) -> str:
    """Return what happened in words, with the times in the zone `tz`."""
    state: dict[str, Any] = event.data
    was: dict[str, Any] = state.get("was", {})
    words = {
        "start": _stored(state.get("start_time"), tz, event.at),
        "before": _stored(was.get("start_time"), tz, event.at),
        "until": _stored(state.get("hold_expires_at"), tz, event.at),
        "hours": state.get("hours"),
        "rating": state.get("rating"),
        "what": ", ".join(str(DETAILS.get(each, each)) for each in state.get("changed", [])),
    }
    return _sentence(event.type, state, was) % words


def _sentence(type_: str, state: Mapping[str, Any], was: Mapping[str, Any]) -> str:
    """Return the sentence for an event, with placeholders for the words to insert."""
    is_pending = state.get("status") == Booking.Status.PENDING
    if type_ == Type.HELD:
        if state.get("waitlist"):
            return _("Seat offered from the waitlist until %(until)s")
        return _("Held until %(until)s")
    if type_ == Type.CREATED:
        if is_pending:
            return _("Requested for %(start)s")
        return _("Booked for %(start)s")
    if type_ == Type.RESCHEDULED:
        if was.get("start_time") == state.get("start_time"):
            return _("Moved to another slot at %(start)s")
        return _("Moved from %(before)s to %(start)s")
    if type_ == Type.CHANGED:
        return _("Details changed (%(what)s)")
    if type_ == Type.EXPIRED:
        if was.get("status") == Booking.Status.PENDING:
            return _("Expired, because nobody confirmed it before the start")
        return _("The hold expired")
    if type_ == Type.CANCELLED and was.get("status") == Booking.Status.HELD:
        return _("Hold released")
    if type_ == Type.COMPLETED and was.get("status") == Booking.Status.NO_SHOW:
        return _("Corrected from no-show to completed")
    if type_ == Type.NO_SHOW and was.get("status") == Booking.Status.COMPLETED:
        return _("Corrected from completed to no-show")
    if type_ == Type.REMINDED and "hours" in state:
        text: str = ngettext(
            "Reminder sent %(hours)s hour before %(start)s",
            "Reminder sent %(hours)s hours before %(start)s",
            state["hours"],
        )
        return text
    sentences: dict[str, str] = {
        Type.CONFIRMED: _("Confirmed"),
        Type.CANCELLED: _("Cancelled"),
        Type.COMPLETED: _("Marked as completed"),
        Type.NO_SHOW: _("Marked as no-show"),
        Type.DELETED: _("Deleted"),
        Type.REVIEWED: _("Reviewed with %(rating)s of 5 stars"),
    }
    return sentences.get(type_, type_.replace("%", "%%"))


def _stored(value: str | None, tz: tzinfo, beside: datetime) -> str:
    """Return, in words, a time that an event stores."""
    if not value:
        return ""
    at = datetime.fromisoformat(value)
    return moment(at, tz, beside=beside)
