"""The lines of a CSV file, one form for each kind of file.

A form checks the cells of a line. `add` stores the line with the same service function as the API
and the admin site. `add` stores nothing and returns False if there already is an account with the
line's email address, a calendar with its name, a service with its title (on its calendar, if the
line names one), or a booking of its service and customer at its start. But if the same import has
stored that booking as cancelled, a line with another status is stored, too. An import changes
nothing that exists already.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from psycopg.rows import namedtuple_row

from accounts import services as accounts
from accounts.emails import canonical, lookup_form
from accounts.models import User
from bookings import services as bookings
from bookings.imports import opening
from bookings.models import Booking
from bookings.transitions import AFTER_START
from bookit import money
from bookit.database.rows import fetch
from bookit.times import parse_instant, validate_zone, wall_clock, zone
from catalog import services as catalog
from catalog.models import Calendar, Service

Status = Booking.Status

# A date and a time in the time zone of a calendar. Excel writes dates with dots in many countries.
# In a date with dots, the day always comes first.
LOCAL_TIME = re.compile(
    r"(?:(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
    r"|(?P<dotted_day>\d\d?)\.(?P<dotted_month>\d\d?)\.(?P<dotted_year>\d{4}))"
    r"[ T](?P<hour>\d\d?):(?P<minute>\d\d)(?::00)?",
    re.ASCII,
)

# The user, the service and the start of a booking.
Key = tuple[UUID, UUID, datetime]

# Finds which of the given bookings exist, whatever their status.
#
# Parameters: users uuid[], services uuid[], starts timestamptz[] (each booking's user, service and
# start, in the same order).
# Columns: user_id uuid, service_id uuid, start_time timestamptz.
_PRESENT = """
SELECT booking.user_id, booking.service_id, booking.start_time
FROM unnest(%(users)s::uuid[], %(services)s::uuid[], %(starts)s::timestamptz[])
    AS line (user_id, service_id, start_time)
JOIN bookings_booking AS booking ON booking.user_id = line.user_id
    AND booking.service_id = line.service_id AND booking.start_time = line.start_time
"""


class Line(forms.Form):
    """A line of a file. The fields are its columns.

    Attributes:
        words: the kind of the lines, such as `Customers`.
        about: says which lines are skipped.
        example: the cells of a few lines, by column.
        renamed: the names of columns, by the arguments of the service function that have other
            names. For example, the argument `provider_id` comes from the column `provider_email`.
    """

    words: ClassVar[Any]
    about: ClassVar[Any]
    example: ClassVar[Sequence[Mapping[str, str]]]
    renamed: ClassVar[Mapping[str, str]] = {}

    @staticmethod
    def comes_first(cells: Mapping[str, str]) -> bool:
        """Return whether a line with these cells has to be imported before the other lines."""
        return False

    @classmethod
    def load(cls, lines: Sequence[Any], before: Any) -> Any:
        """Return what `add` needs to know about these lines, read for all of them at once.

        Args:
            before: the result for the lines that were imported before; None for the first lines.
        """
        return None

    def add(self, known: Any, *, actor: User, at: datetime) -> bool:
        """Store the line unless it exists already, and return whether it was stored."""
        raise NotImplementedError

    def filled(self) -> dict[str, Any]:
        """Return the cells that are not empty."""
        return {
            name: value for name, value in self.cleaned_data.items() if value not in (None, "", [])
        }


class ZoneColumn(forms.CharField):
    """The name of a time zone."""

    default_validators = [validate_zone]

    def __init__(self) -> None:
        super().__init__(
            required=False,
            max_length=64,
            help_text=gettext_lazy("An IANA time zone such as Europe/Lisbon. If empty, UTC."),
        )


class WordColumn(forms.ChoiceField):
    """One of a few words."""

    def __init__(self, *words: str, help_text: Any) -> None:
        super().__init__(
            required=False,
            choices=[(word, word) for word in words],
            help_text=help_text,
            error_messages={
                "invalid_choice": format_lazy(
                    "{} {}", gettext_lazy("Write one of these words:"), ", ".join(words)
                )
            },
        )


class PriceColumn(forms.DecimalField):
    """A price, with a decimal point or a decimal comma."""

    def to_python(self, value: Any) -> Any:
        """Return the number."""
        text = str(value)
        is_decimal_comma = text.count(",") == 1 and "." not in text
        return super().to_python(text.replace(",", ".") if is_decimal_comma else value)


class TimeColumn(forms.CharField):
    """A time in the time zone of the booking's calendar, or an instant with an offset."""

    def clean(self, value: Any) -> Any:
        """Return an instant, or a time without a time zone; None if the cell is empty.

        Raises:
            ValidationError: the text is not a time, or its year is before 1900 or after 2999.
        """
        text = super().clean(value)
        if not text:
            return None
        found = LOCAL_TIME.fullmatch(text)
        try:
            if found is None:
                return parse_instant(text)
            year, month, day = (
                int(found[name] or found[f"dotted_{name}"]) for name in ("year", "month", "day")
            )
            clock = time(int(found["hour"]), int(found["minute"]))
            shown = datetime.combine(date(year, month, day), clock)
        except ValueError:
            raise ValidationError(_("Write a time such as 2026-12-01 10:00."), "invalid") from None
        if not 1900 <= shown.year < 3000:
            raise ValidationError(_("Must be in the years 1900 to 2999."), "invalid")
        return shown


class CustomerLine(Line):
    """A customer, who gets no email about the account.

    Customers set their first password by resetting it.
    """

    words = gettext_lazy("Customers")
    about = gettext_lazy("A line is skipped if its email address already has an account.")
    example = [
        {
            "email": "ana@example.com",
            "name": "Ana Silva",
            "phone": "+351 912 345 678",
            "timezone": "Europe/Lisbon",
            "language": "pt",
        },
        {"email": "ben@example.com", "name": "Ben Okafor"},
    ]

    email = forms.EmailField()
    name = forms.CharField(max_length=200)
    phone = forms.CharField(required=False, max_length=32)
    timezone = ZoneColumn()
    language = forms.CharField(
        required=False,
        max_length=35,
        help_text=gettext_lazy("The language of emails, such as en or pt."),
    )

    def clean_email(self) -> str:
        """Return the address as it is stored."""
        return canonical(self.cleaned_data["email"])

    @classmethod
    def load(cls, lines: Sequence[Any], before: Any) -> set[str]:
        """Return the addresses that have an account."""
        emails = [line.cleaned_data["email"] for line in lines]
        return {*User.objects.filter(email__in=emails).values_list("email", flat=True)}

    def add(self, known: set[str], *, actor: User, at: datetime) -> bool:
        """Create the account, unless the address has one already."""
        user = User(**self.filled())
        user.clean_fields(exclude=["password"])
        if user.email in known:
            return False
        accounts.add_user(user=user, actor=actor, at=at, sends_email=False)
        known.add(user.email)
        return True


class CalendarLine(Line):
    """A calendar with its opening hours. Empty opening hours mean always open."""

    words = gettext_lazy("Calendars")
    about = gettext_lazy("A line is skipped if a calendar with its name already exists.")
    example = [
        {
            "name": "Chair 1",
            "timezone": "Europe/Lisbon",
            "opening_hours": "Mon-Fri 09:00-12:30 14:00-18:00; Sat 10:00-14:00",
        },
        {"name": "Studio", "timezone": "Europe/Lisbon"},
    ]
    renamed = {"provider_id": "provider_email"}

    name = forms.CharField(max_length=200)
    timezone = ZoneColumn()
    provider_email = forms.EmailField(
        required=False,
        help_text=gettext_lazy("The address of a user who is a provider or an admin."),
    )
    opening_hours = forms.CharField(
        required=False,
        max_length=1000,
        help_text=gettext_lazy(
            "For example, Mon-Fri 09:00-12:30 14:00-18:00; Sat 10:00-14:00. If empty, always open."
        ),
    )

    def clean_opening_hours(self) -> list[dict[str, int]]:
        """Return the opening hours."""
        return opening.parse(self.cleaned_data["opening_hours"])

    def add(self, known: Any, *, actor: User, at: datetime) -> bool:
        """Create the calendar, unless there is one with its name."""
        fields = self.filled()
        if Calendar.objects.filter(name=fields["name"]).exists():
            return False
        email = fields.pop("provider_email", None)
        if email:
            found = User.objects.filter(email=lookup_form(email), is_active=True)
            fields["provider_id"] = _one(found, "provider_email", email).pk
        catalog.create_calendar(actor=actor, at=at, **fields)
        return True


class ServiceLine(Line):
    """A service. If the line names no calendar, the service gets a calendar of its own."""

    words = gettext_lazy("Services")
    about = gettext_lazy(
        "A line is skipped if its calendar already has a service with this title. A line without a "
        "calendar is skipped if any calendar has a service with this title."
    )
    example = [
        {
            "title": "Haircut",
            "calendar": "Chair 1",
            "category": "Hair",
            "price": "25.00",
            "currency": "EUR",
            "duration_minutes": "45",
            "requires_confirmation": "no",
            "buffer_after_minutes": "10",
            "min_notice_minutes": "60",
            "max_advance_days": "90",
            "cancellation_notice_minutes": "1440",
        },
        {
            "title": "Yoga",
            "calendar": "Studio",
            "description": "All levels. Mats are there.",
            "category": "Classes",
            "price": "12.50",
            "currency": "EUR",
            "duration_minutes": "60",
            "capacity": "12",
            "requires_confirmation": "no",
        },
    ]
    renamed = {"calendar_id": "calendar"}

    title = forms.CharField(max_length=200)
    calendar = forms.CharField(
        required=False,
        max_length=200,
        help_text=gettext_lazy(
            "The calendar of the service. If empty, the service gets a calendar of its own."
        ),
    )
    description = forms.CharField(required=False, max_length=10_000)
    category = forms.CharField(required=False, max_length=100)
    price = PriceColumn(min_value=0)
    currency = forms.CharField(
        required=False, max_length=3, help_text=gettext_lazy("A code such as EUR.")
    )
    duration_minutes = forms.IntegerField(min_value=1)
    capacity = forms.IntegerField(
        required=False,
        min_value=1,
        help_text=gettext_lazy("The number of bookings at a time. If empty, 1."),
    )
    mode = WordColumn(
        *Service.Mode.values,
        help_text=gettext_lazy(
            "open (at any time in the opening hours) or slots (in published slots only). If empty, "
            "open."
        ),
    )
    requires_confirmation = WordColumn(
        "yes", "no", help_text=gettext_lazy("yes or no. If empty, yes.")
    )
    buffer_before_minutes = forms.IntegerField(required=False, min_value=0)
    buffer_after_minutes = forms.IntegerField(required=False, min_value=0)
    min_notice_minutes = forms.IntegerField(required=False, min_value=0)
    max_advance_days = forms.IntegerField(required=False, min_value=1)
    cancellation_notice_minutes = forms.IntegerField(required=False, min_value=0)

    def clean(self) -> None:
        """Refuse a price such as 1,250 EUR or 1.250 EUR, which can be 1.25 or 1250."""
        currency = (self.cleaned_data.get("currency") or settings.DEFAULT_CURRENCY).upper()
        price = self.cleaned_data.get("price")
        if price is None or not 1 <= price < 1000 or price.as_tuple().exponent != -3:
            return
        if money.decimals(currency) < 3 and money.fits(price, currency):
            text = _("This can mean %(small)s or %(large)s. Write one of them.")
            meanings = {"small": money.in_currency(price, currency), "large": int(price * 1000)}
            self.add_error("price", ValidationError(text % meanings, "invalid"))

    def add(self, known: Any, *, actor: User, at: datetime) -> bool:
        """Create the service, unless `about` says that the line is skipped."""
        fields = self.filled()
        name = fields.pop("calendar", None)
        if "requires_confirmation" in fields:
            fields["requires_confirmation"] = fields["requires_confirmation"] == "yes"
        fields["currency"] = fields.get("currency", settings.DEFAULT_CURRENCY).upper()
        Service(**fields).clean_fields(exclude=["calendar"])
        same = Service.objects.filter(title=fields["title"])
        if name:
            calendar = _one(Calendar.objects.filter(name=name), "calendar", name)
            fields["calendar_id"], same = calendar.pk, same.filter(calendar=calendar)
        if same.exists():
            return False
        catalog.create_service(actor=actor, at=at, **fields)
        return True


class BookingLine(Line):
    """A booking, past or future. The import sends no email and no webhook message about it."""

    words = gettext_lazy("Bookings")
    about = gettext_lazy(
        "A line is skipped if its customer already has a booking of its service at this time."
    )
    example = [
        {
            "customer_email": "ana@example.com",
            "service": "Haircut",
            "calendar": "Chair 1",
            "start_time": "2026-11-03 10:00",
            "status": "completed",
            "booked_at": "2026-10-21 18:32",
        },
        {
            "customer_email": "ben@example.com",
            "service": "Yoga",
            "start_time": "2027-01-12 18:30",
            "notes": "Bad knee.",
        },
    ]
    renamed = {"user_id": "customer_email", "service_id": "service"}

    customer_email = forms.EmailField(
        help_text=gettext_lazy("The address of a customer who has an account.")
    )
    service = forms.CharField(max_length=200, help_text=gettext_lazy("The title of a service."))
    calendar = forms.CharField(
        required=False,
        max_length=200,
        help_text=gettext_lazy(
            "The calendar of the service. Needed if several services have this title."
        ),
    )
    start_time = TimeColumn(
        max_length=40,
        help_text=gettext_lazy(
            "Such as 2026-12-01 10:00 or 1.12.2026 10:00 on the clocks of the calendar, or "
            "2026-12-01T10:00:00Z."
        ),
    )
    status = WordColumn(
        Status.CONFIRMED.value,
        Status.PENDING.value,
        Status.COMPLETED.value,
        Status.NO_SHOW.value,
        Status.CANCELLED.value,
        help_text=gettext_lazy(
            "confirmed, pending, completed, no_show or cancelled. If empty, confirmed."
        ),
    )
    booked_at = TimeColumn(
        required=False,
        max_length=40,
        help_text=gettext_lazy("When it was booked. Reports on lead times need it."),
    )
    notes = forms.CharField(required=False, max_length=2000)

    # `load` sets these attributes.
    user: User
    booked_service: Service
    start: datetime
    refusal: ValidationError | None = None

    @staticmethod
    def comes_first(cells: Mapping[str, str]) -> bool:
        """Return whether the booking was cancelled, and so frees its time for the other lines."""
        return cells.get("status", "").strip() == Status.CANCELLED

    @classmethod
    def load(cls, lines: Sequence[Any], before: dict[Key, bool] | None) -> dict[Key, bool]:
        """Find the rows that the lines name.

        Returns:
            the bookings that exist already, each with whether this import has cancelled it.
        """
        emails = {lookup_form(line.cleaned_data["customer_email"]) for line in lines}
        users = {user.email: user for user in User.objects.filter(email__in=emails)}
        titles = {line.cleaned_data["service"] for line in lines}
        services: dict[str, list[Service]] = {}
        for service in Service.objects.filter(title__in=titles).select_related("calendar"):
            services.setdefault(service.title, []).append(service)
        for line in lines:
            try:
                line.resolve(users, services)
            except ValidationError as refusal:
                line.refusal = refusal
        resolved = [line for line in lines if line.refusal is None]
        values = {
            "users": [line.user.pk for line in resolved],
            "services": [line.booked_service.pk for line in resolved],
            "starts": [line.start for line in resolved],
        }
        present: list[Any] = fetch(_PRESENT, values, namedtuple_row)
        found = {(row.user_id, row.service_id, row.start_time): False for row in present}
        return {**found, **(before or {})}

    def resolve(self, users: Mapping[str, User], services: Mapping[str, list[Service]]) -> None:
        """Find the customer, the service and the start.

        Raises:
            ValidationError: one of them does not exist, or there are several; the error names the
                column.
        """
        cells = self.cleaned_data
        email = lookup_form(cells["customer_email"])
        named = [users[email]] if email in users else []
        self.user = _one(named, "customer_email", cells["customer_email"])
        found = services.get(cells["service"], [])
        if cells["calendar"]:
            at_calendar = [each for each in found if each.calendar.name == cells["calendar"]]
            if found and not at_calendar:
                text = _("“%(service)s” is not a service of the calendar “%(calendar)s”.")
                raise ValidationError({"calendar": text % cells})
            found = at_calendar
        self.booked_service = _one(found, "service", cells["service"], hint=not cells["calendar"])
        self.start = _instant(
            cells["start_time"], zone(self.booked_service.calendar.timezone), "start_time"
        )

    def add(self, known: dict[Key, bool], *, actor: User, at: datetime) -> bool:
        """Book, unless the customer has this booking already.

        A confirmed booking that has ended is completed now. Otherwise, a worker would complete it
        after the import, and send webhook messages about it.
        """
        if self.refusal:
            raise self.refusal
        status, start_time = self.cleaned_data["status"] or Status.CONFIRMED, self.start
        if status in AFTER_START and start_time > at:
            text = _("A booking that has not begun cannot be %(status)s.")
            raise ValidationError({"status": text % {"status": status}})
        booked_at = self._booked_at(at)
        key = (self.user.pk, self.booked_service.pk, start_time)
        if key in known and (status == Status.CANCELLED or not known[key]):
            return False
        # The rules below come last: they could refuse, instead of skip, a line that an earlier
        # import has stored.
        if not self.user.is_active:
            text = _("The account with this email address is not active.")
            raise ValidationError({"customer_email": text})
        if status == Status.PENDING and start_time <= at:
            raise ValidationError({"status": _("A booking that has begun cannot be pending.")})
        if status == Status.PENDING and not self.booked_service.requires_confirmation:
            text = _("This service confirms its bookings at once.")
            raise ValidationError({"status": text})
        booking = bookings.create_booking(
            actor=actor,
            user_id=self.user.pk,
            service_id=self.booked_service.pk,
            start_time=start_time,
            notes=self.cleaned_data["notes"],
            at=booked_at,
        )
        if status == Status.CONFIRMED and booking.end_time <= at:
            status = Status.COMPLETED
        if booking.status != status:
            # A booking that is confirmed after the time of a reminder does not get this reminder
            # (`bookings.clock`).
            changed_at = booked_at if status == Status.CONFIRMED else at
            bookings.change_status(booking_id=booking.pk, status=status, actor=actor, at=changed_at)
        known[key] = status == Status.CANCELLED
        return True

    def _booked_at(self, at: datetime) -> datetime:
        """Return when the booking was made, but not later than the notice of its service allows.

        Without a notice, the result is at least a minute before the start.
        """
        last = self.start - timedelta(minutes=max(self.booked_service.min_notice_minutes, 1))
        if self.cleaned_data["booked_at"] is None:
            return min(at, last)
        tz = zone(self.booked_service.calendar.timezone)
        booked_at = _instant(self.cleaned_data["booked_at"], tz, "booked_at")
        if booked_at > min(at, self.start):
            text = _("It must be in the past, and before the start.")
            raise ValidationError({"booked_at": text})
        return min(booked_at, last)


KINDS: dict[str, type[Line]] = {
    "customers": CustomerLine,
    "calendars": CalendarLine,
    "services": ServiceLine,
    "bookings": BookingLine,
}


def _instant(shown: datetime, tz: ZoneInfo, column: str) -> datetime:
    """Return the instant of a local time in a zone. An instant is returned as it is.

    A time that occurs twice means its first occurrence, as everywhere in BookIt.

    Raises:
        ValidationError: the time does not exist, because summer time begins.
    """
    if shown.tzinfo is not None:
        return shown
    instant = wall_clock(shown.date(), shown.hour * 60 + shown.minute, tz)
    if instant.astimezone(tz).replace(tzinfo=None) != shown:
        text = _("The clocks of %(zone)s skip this time, because summer time begins.")
        raise ValidationError({column: text % {"zone": tz}})
    return instant


def _one(rows: QuerySet[Any] | Sequence[Any], field: str, value: str, *, hint: bool = False) -> Any:
    """Return the only row.

    Args:
        hint: whether the error suggests naming a calendar, to choose one of several rows.

    Raises:
        ValidationError: there is no row, or there are several; the error names the column.
    """
    found = [*rows[:2]]
    if not found:
        raise ValidationError({field: _("There is no “%(value)s”.") % {"value": value}})
    if len(found) > 1:
        text = _("There are several “%(value)s”. Rename one of them.")
        if hint:
            text = _("There are several “%(value)s”. Name the calendar, or rename one of them.")
        raise ValidationError({field: text % {"value": value}})
    return found[0]
