"""What the page of a booking shows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import quote

from django.db.models import QuerySet
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.keys.models import ApiKey
from accounts.models import User
from bookings.availability.search import Search, whole_days
from bookings.availability.terms import terms_of
from bookings.desk import words
from bookings.desk.models import StaffNote
from bookings.diary.reading import STATES
from bookings.holds import is_ended_hold
from bookings.mails import services as mails
from bookings.models import Booking
from bookings.transitions import AFTER_START, TRANSITIONS
from bookit import money
from bookit.adminsite.words import foreign_zone
from bookit.database.versions import version_of
from bookit.mails.models import MailCount
from bookit.times import day_start, time_of_day, zone
from catalog.models import MAX_ADVANCE_DAYS

Status = Booking.Status

# The page shows at most this many events, notes, and other bookings of the account. It counts the
# statuses of the last `MAX_COUNTED` other bookings.
MAX_EVENTS = 100
MAX_NOTES = 50
MAX_OTHERS = 8
MAX_COUNTED = 200
# The page offers the free times of `DAYS` days at once, but at most `MAX_TIMES` free times, unless
# the first day alone has more.
DAYS = 7
MAX_TIMES = 300
# The first of the days whose free times are shown is at most this far away.
FARTHEST = timedelta(days=MAX_ADVANCE_DAYS)

# The statuses that a button sets, with the words on the button.
BUTTONS = {
    Status.CONFIRMED: gettext_lazy("Confirm"),
    Status.COMPLETED: gettext_lazy("Mark as completed"),
    Status.NO_SHOW: gettext_lazy("Mark as no-show"),
}


@dataclass(frozen=True)
class Button:
    """A button that changes the status of a booking."""

    status: str
    label: str
    is_primary: bool


@dataclass(frozen=True)
class Time:
    """A free time, as a radio button with a value and a label."""

    value: str
    label: str
    seats_left: int


@dataclass(frozen=True)
class Day:
    """The free times of a day."""

    label: str
    times: list[Time]


@dataclass(frozen=True)
class Offers:
    """The free times of up to a week, and the first days of the previous and the next page."""

    first: date
    label: str
    days: list[Day] = field(default_factory=list)
    before: date | None = None
    after: date | None = None


@dataclass(frozen=True)
class Other:
    """Another booking of the same account, perhaps for another attendee."""

    id: Any
    title: str
    when: str
    status: str
    label: str


class BookingPage:
    """Everything that the page of a booking shows, for one viewer at one moment."""

    def __init__(self, booking: Booking, *, viewer: User, at: datetime) -> None:
        self.booking, self.viewer, self.at = booking, viewer, at
        self.tz = zone(booking.calendar.timezone)

    def moment(self, at: datetime) -> str:
        """Return a time in the calendar's zone, without the year if that is the current year."""
        return words.moment(at, self.tz, beside=self.at)

    # --- What and when --------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """The status in words."""
        return str(STATES[self.booking.status])

    @property
    def when(self) -> str:
        """The period in the calendar's zone."""
        return words.period(self.booking.start_time, self.booking.end_time, self.tz)

    @property
    def own_when(self) -> str:
        """The period in the viewer's zone; empty if clocks in both zones show the same time."""
        own = zone(self.viewer.timezone)
        if not foreign_zone(self.booking.start_time, self.tz, own):
            return ""
        return words.period(self.booking.start_time, self.booking.end_time, own)

    @property
    def distance(self) -> str:
        """How far away the booking is: "in 3 days", "now" or "2 hours ago"."""
        start, end = self.booking.start_time, self.booking.end_time
        if start > self.at:
            return _("in %(time)s") % {"time": timeuntil(start, self.at, depth=1)}
        if end > self.at:
            return _("now")
        return _("%(time)s ago") % {"time": timesince(end, self.at, depth=1)}

    @property
    def minutes(self) -> int:
        """The length in minutes."""
        return (self.booking.end_time - self.booking.start_time) // timedelta(minutes=1)

    @property
    def seats(self) -> int:
        """The number of seats of the slot or of the service."""
        slot = self.booking.slot
        return slot.capacity if slot else self.booking.service.capacity

    @property
    def price(self) -> str:
        """The price with its currency."""
        return money.written(self.booking.price, self.booking.currency)

    @property
    def reason(self) -> str:
        """The reason of a cancellation, if there is one."""
        return words.reason(self.booking.cancellation_reason)

    @property
    def held_until(self) -> str:
        """When a hold expires, in the calendar's zone."""
        until = self.booking.hold_expires_at
        return self.moment(until) if until else ""

    # --- What can be done -----------------------------------------------------------------------

    @property
    def version(self) -> str:
        """The version of the booking, which the forms send."""
        return str(version_of(self.booking.updated_at))

    @property
    def buttons(self) -> list[Button]:
        """The buttons for the changes that the status and the start allow."""
        allowed = TRANSITIONS[self.booking.status]
        started = self.booking.start_time <= self.at
        shown = [
            status
            for status in BUTTONS
            if status in allowed and (started or status not in AFTER_START)
        ]
        return [Button(each, str(BUTTONS[each]), each == shown[0]) for each in shown]

    @property
    def can_change(self) -> bool:
        """Whether the status or the time can be changed."""
        return bool(self.buttons) or self.can_cancel or self.can_move

    @property
    def can_cancel(self) -> bool:
        """Whether the status allows cancelling the booking."""
        return Status.CANCELLED in TRANSITIONS[self.booking.status]

    @property
    def can_move(self) -> bool:
        """Whether the status allows moving the booking."""
        return self.booking.status in Booking.EXPECTED

    def day(self, text: str) -> date:
        """Return the first day to show: the day that a URL names, or else the day of the booking.

        Days in the past or beyond `FARTHEST` become today.
        """
        today = self.at.astimezone(self.tz).date()
        try:
            wanted = date.fromisoformat(text)
        except ValueError:
            wanted = max(today, self.booking.start_time.astimezone(self.tz).date())
        return wanted if today <= wanted <= today + FARTHEST else today

    def offers(self, first: date) -> Offers:
        """Return the times to which the booking can move in the week that begins at `first`."""
        today = self.at.astimezone(self.tz).date()
        after = first + timedelta(days=DAYS)
        from_, until = max(self.at, day_start(first, self.tz)), day_start(after, self.tz)
        found: list[Any] = []
        # There is one service, unless the booking and then the service have just been deleted.
        for terms in terms_of([self.booking.service_id], from_).values():
            moved = terms.for_booking(self.booking)
            search = Search([moved], from_, until, at=self.at, ignored=self.booking.pk)
            found, next_day = whole_days(search.free_times(moved), MAX_TIMES, self.tz)
            after = next_day or after
        last = after - timedelta(days=1)
        return Offers(
            first=first,
            label=_("%(first)s to %(last)s") % {"first": words.day(first), "last": words.day(last)},
            days=self._days(found),
            before=max(today, first - timedelta(days=DAYS)) if first > today else None,
            after=after if after <= today + FARTHEST else None,
        )

    def _days(self, days: Iterable[tuple[date, list[Any]]]) -> list[Day]:
        """Return the days with their free times, except the current time of the booking."""
        current, found = self.booking.start_time, []
        for day, times in days:
            if others := [self.time(each) for each in times if each["start_time"] != current]:
                found.append(Day(words.day(day), others))
        return found

    def time(self, free: Any, *, with_day: bool = False) -> Time:
        """Return a radio button for a free time that a search found or that a refusal offers."""
        local = free["start_time"].astimezone(self.tz)
        return Time(
            value=str(free["slot_id"] or free["start_time"].isoformat()),
            label=words.moment(local, self.tz) if with_day else time_of_day(local),
            seats_left=free.get("seats_left", 1),
        )

    # --- Who ------------------------------------------------------------------------------------

    @cached_property
    def attendee(self) -> dict[str, str]:
        """The name, email address and phone number of the attendee, also as parts of links."""
        found = self.booking.attendee()
        return {
            "name": self.booking.customer(),
            "email": found["attendee_email"],
            "phone": found["attendee_phone"],
            "mailto": quote(found["attendee_email"], safe="@"),
            "tel": "".join(each for each in found["attendee_phone"] if each in "+0123456789"),
        }

    @property
    def account_name(self) -> str:
        """The user who booked, or for whom staff booked, in words.

        It is empty if the attendee has the same name.
        """
        name = self.booking.user.in_words()
        return "" if name == self.attendee["name"] else name

    @cached_property
    def _others(self) -> list[dict[str, Any]]:
        # One query serves both the list and the counts. Released and expired holds are left out,
        # because nothing was ever booked: the customer has not cancelled anything.
        bookings = Booking.objects.filter(~is_ended_hold(), user_id=self.booking.user_id).order_by(
            "-start_time", "-id"
        )
        columns = ("id", "start_time", "end_time", "status", "service__title", "calendar__timezone")
        rows = bookings.exclude(pk=self.booking.pk).values(*columns)
        return [*rows[: MAX_COUNTED + 1]]

    @property
    def others(self) -> list[Other]:
        """The other bookings of the account, latest first."""
        return [
            Other(
                id=row["id"],
                title=row["service__title"],
                when=words.moment(
                    row["start_time"], zone(row["calendar__timezone"]), beside=self.at
                ),
                status=row["status"],
                label=str(STATES[row["status"]]),
            )
            for row in self._others[:MAX_OTHERS]
        ]

    @property
    def more_others(self) -> int:
        """The number of counted other bookings that are not listed."""
        return max(0, min(len(self._others), MAX_COUNTED) - MAX_OTHERS)

    @property
    def more_in_words(self) -> str:
        """The number of other bookings that are not listed: `192+` if not all were counted."""
        plus = "+" if len(self._others) > MAX_COUNTED else ""
        return f"{self.more_others}{plus}"

    @property
    def counts(self) -> list[tuple[str, str, int]]:
        """The statuses of the counted other bookings, each with its label and its number."""
        found = Counter(row["status"] for row in self._others[:MAX_COUNTED])
        return [(each, str(STATES[each]), found[each]) for each in Status if found[each]]

    # --- What happened --------------------------------------------------------------------------

    @cached_property
    def _events(self) -> list[Any]:
        events = self.booking.events.select_related("actor").order_by("-id")
        return [*events[: MAX_EVENTS + 1]]

    @property
    def has_earlier_events(self) -> bool:
        """Whether the booking has more events than the page shows."""
        return len(self._events) > MAX_EVENTS

    @cached_property
    def history(self) -> list[tuple[str, words.Entry]]:
        """The history, latest first: the time in the calendar's zone, and what happened."""
        events = self._events[:MAX_EVENTS]
        ids = [each.api_key_id for each in events if each.api_key_id]
        keys = dict(ApiKey.objects.filter(pk__in=ids).values_list("pk", "name")) if ids else {}
        found = words.entries(events, booking=self.booking, keys=keys, tz=self.tz)
        return [(self.moment(each.at), each) for each in found]

    @cached_property
    def mail_log(self) -> list[tuple[str, mails.Announcement]]:
        """The emails of the shown events, sent or not, latest first, each with its event's time."""
        ids = [each.pk for each in self._events[:MAX_EVENTS]]
        found = mails.announcements(booking=self.booking, event_ids=ids)
        return [(self.moment(each.at), each) for each in reversed(found)]

    @cached_property
    def withheld(self) -> int:
        """How many emails the daily limits of this booking have withheld in the last 30 days."""
        subjects = [f"booking/{self.booking.pk}/{each}" for each in ("attendee", "provider")]
        counts = MailCount.objects.filter(subject__in=subjects)
        return sum(counts.values_list("withheld", flat=True))

    @cached_property
    def _notes(self) -> list[StaffNote]:
        found: QuerySet[StaffNote] = StaffNote.objects.filter(booking=self.booking)
        return [*found.select_related("author").order_by("-id")[: MAX_NOTES + 1]]

    @property
    def has_earlier_notes(self) -> bool:
        """Whether the booking has more notes than the page shows."""
        return len(self._notes) > MAX_NOTES

    @property
    def notes(self) -> list[tuple[str, str, StaffNote]]:
        """The notes of staff, latest first: the time, the author, and the note."""
        shown = self._notes[:MAX_NOTES]
        return [(self.moment(each.at), each.author.in_words(), each) for each in shown]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """All stored columns, except three that are computed from others, each with its value."""
        hidden = {"active", "unfinished", "blocked"}
        shown = [each for each in Booking._meta.concrete_fields if each.name not in hidden]
        return [(each.name, _stored(getattr(self.booking, each.attname))) for each in shown]


def _stored(value: Any) -> str:
    """Return a stored value as text, or a dash if there is none."""
    if isinstance(value, datetime):
        return value.isoformat()
    return "\u2013" if value in (None, "") else str(value)
