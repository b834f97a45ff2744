"""The lines of a CSV file, one form for each kind of file.

A form checks the cells of a line. Its `add` calls the service that a person would call, and returns
False if the line has been imported before. Lines are recognised by what people know: the email
address of a customer, the name of a calendar, the title of a service, and the service, the customer
and the start of a booking. An import never changes what is there.
"""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive
from django.utils.translation import gettext as _

from accounts import services as accounts
from accounts.emails import canonical, lookup_form
from accounts.models import User
from bookings import services as bookings
from bookings.imports import opening
from bookings.models import Booking
from bookit.times import zone
from catalog import services as catalog
from catalog.models import Calendar, Service

Status = Booking.Status


class Line(forms.Form):
    """A line of a file. The fields are its columns."""

    def add(self, *, actor: User, at: datetime) -> bool:
        """Store what the line says, and return whether it is new."""
        raise NotImplementedError

    def filled(self) -> dict[str, Any]:
        """Return the cells that are not empty."""
        return {
            name: value for name, value in self.cleaned_data.items() if value not in (None, "", [])
        }


class Customer(Line):
    """A person who books. They get no email; a password reset gives them a password."""

    email = forms.EmailField()
    name = forms.CharField(max_length=200)
    phone = forms.CharField(required=False, max_length=32)
    timezone = forms.CharField(required=False, max_length=64)

    def clean_email(self) -> str:
        """Return the address as it is stored."""
        return canonical(self.cleaned_data["email"])

    def add(self, *, actor: User, at: datetime) -> bool:
        """Create the account, unless the address already has one."""
        user = User(**self.filled())
        user.full_clean(exclude=["password"], validate_unique=False, validate_constraints=False)
        if User.objects.filter(email=user.email).exists():
            return False
        accounts.add_user(user=user, actor=actor, at=at, is_told=False)
        return True


class CalendarLine(Line):
    """A calendar with its opening hours. Empty opening hours mean always open."""

    name = forms.CharField(max_length=200)
    timezone = forms.CharField(required=False, max_length=64)
    provider_email = forms.EmailField(required=False)
    opening_hours = forms.CharField(required=False, max_length=1000)

    def clean_opening_hours(self) -> list[dict[str, int]]:
        """Return the opening hours."""
        return opening.parse(self.cleaned_data["opening_hours"])

    def clean_timezone(self) -> str:
        """Return the time zone."""
        name: str = self.cleaned_data["timezone"]
        if name:
            Calendar._meta.get_field("timezone").run_validators(name)
        return name

    def add(self, *, actor: User, at: datetime) -> bool:
        """Create the calendar, unless there is one with its name."""
        fields = self.filled()
        email = fields.pop("provider_email", None)
        if email:
            fields["provider_id"] = _active_user("provider_email", email).pk
        if Calendar.objects.filter(name=fields["name"]).exists():
            return False
        catalog.create_calendar(actor=actor, at=at, **fields)
        return True


class ServiceLine(Line):
    """A service. Without a calendar, it gets one of its own."""

    title = forms.CharField(max_length=200)
    calendar = forms.CharField(required=False, max_length=200)
    description = forms.CharField(required=False, max_length=10_000)
    category = forms.CharField(required=False, max_length=100)
    price = forms.DecimalField(min_value=0, max_digits=10)
    currency = forms.CharField(required=False, max_length=3)
    duration_minutes = forms.IntegerField(min_value=1)
    capacity = forms.IntegerField(required=False, min_value=1)
    mode = forms.ChoiceField(required=False, choices=Service.Mode)
    requires_confirmation = forms.ChoiceField(
        required=False, choices=[("yes", "yes"), ("no", "no")]
    )
    buffer_before_minutes = forms.IntegerField(required=False, min_value=0)
    buffer_after_minutes = forms.IntegerField(required=False, min_value=0)
    min_notice_minutes = forms.IntegerField(required=False, min_value=0)
    max_advance_days = forms.IntegerField(required=False, min_value=1)
    cancellation_notice_minutes = forms.IntegerField(required=False, min_value=0)

    def add(self, *, actor: User, at: datetime) -> bool:
        """Create the service, unless its calendar has one with its title."""
        fields = self.filled()
        name = fields.pop("calendar", None)
        if "requires_confirmation" in fields:
            fields["requires_confirmation"] = fields["requires_confirmation"] == "yes"
        fields["currency"] = fields.get("currency", settings.DEFAULT_CURRENCY).upper()
        fields.setdefault("step_minutes", fields["duration_minutes"])
        service = Service(**fields)
        service.clean_fields(exclude=["calendar"])
        same = Service.objects.filter(title=fields["title"])
        if name:
            calendar = _one(Calendar.objects.filter(name=name), "calendar", name)
            fields["calendar_id"], same = calendar.pk, same.filter(calendar=calendar)
        if same.exists():
            return False
        catalog.create_service(actor=actor, at=at, **fields)
        return True


class BookingLine(Line):
    """A booking, past or future. Nobody gets an email or a webhook message about it."""

    customer_email = forms.EmailField()
    service = forms.CharField(max_length=200)
    calendar = forms.CharField(required=False, max_length=200)
    start_time = forms.CharField(max_length=40)
    status = forms.ChoiceField(
        required=False,
        choices=[
            (each, each)
            for each in (
                Status.CONFIRMED,
                Status.PENDING,
                Status.COMPLETED,
                Status.NO_SHOW,
                Status.CANCELLED,
            )
        ],
    )
    notes = forms.CharField(required=False, max_length=2000)

    def clean_start_time(self) -> datetime:
        """Return the start, which has no offset if it is in the calendar's zone."""
        text = self.cleaned_data["start_time"]
        try:
            start_time = parse_datetime(text)
        except ValueError:
            start_time = None
        if start_time is None:
            raise ValidationError(_("Write, for example: 2026-12-01 10:00."), "start_time")
        return start_time

    def add(self, *, actor: User, at: datetime) -> bool:
        """Book, unless the customer already has this booking."""
        cells = self.cleaned_data
        user = _active_user("customer_email", cells["customer_email"])
        found = Service.objects.filter(title=cells["service"]).select_related("calendar")
        if cells["calendar"]:
            found = found.filter(calendar__name=cells["calendar"])
        service = _one(found, "service", cells["service"])
        start_time = cells["start_time"]
        if is_naive(start_time):
            start_time = start_time.replace(tzinfo=zone(service.calendar.timezone))
        status = cells["status"] or Status.CONFIRMED
        if status == Status.PENDING and start_time <= at:
            raise ValidationError({"status": _("A booking in the past cannot be pending.")})
        if Booking.objects.filter(service=service, user=user, start_time=start_time).exists():
            return False
        # As late as the service's notice allowed.
        notice = timedelta(minutes=max(service.min_notice_minutes, 1))
        booking = bookings.create_booking(
            actor=actor,
            user_id=user.pk,
            service_id=service.pk,
            start_time=start_time,
            notes=cells["notes"],
            at=min(at, start_time - notice),
        )
        if booking.status != status:
            bookings.change_status(booking_id=booking.pk, status=status, actor=actor, at=at)
        return True


KINDS: dict[str, type[Line]] = {
    "customers": Customer,
    "calendars": CalendarLine,
    "services": ServiceLine,
    "bookings": BookingLine,
}


def _active_user(field: str, email: str) -> User:
    users = User.objects.filter(email=lookup_form(email), is_active=True)
    user: User = _one(users, field, email)
    return user


def _one(rows: QuerySet[Any], field: str, value: str) -> Any:
    """Return the only row.

    Raises:
        ValidationError: there is no row, or there are several; the error names the column.
    """
    found = [*rows[:2]]
    if not found:
        raise ValidationError({field: _("There is no “%(value)s”.") % {"value": value}})
    if len(found) > 1:
        text = _("There are several “%(value)s”. Name the calendar, or rename one of them.")
        raise ValidationError({field: text % {"value": value}})
    return found[0]
