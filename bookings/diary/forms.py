"""The parameters of the diary's requests."""

import re
from datetime import datetime, time
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from bookings.diary.reading import MAX_CALENDARS, MAX_DAYS, wall
from bookit.times import parse_day, validate_zone, wall_clock, zone

# The time of day in the value of `<input type="datetime-local">`. The seconds are ignored. Hour 24
# is refused here, because Python 3.14 and newer would read 24:00 as 00:00 of the same day.
CLOCK = re.compile(r"T((?:[01]\d|2[0-3]):\d\d)(:\d\d(\.\d+)?)?", re.ASCII)


class DayField(forms.CharField):
    """A day, for example `2026-12-01`."""

    def to_python(self, value: Any) -> Any:
        """Return the day as a date; None if the field is empty.

        Raises:
            ValidationError: the value is not a day.
        """
        text = super().to_python(value) or ""
        if not text:
            return None
        try:
            return parse_day(text)
        except ValueError as error:
            raise ValidationError(str(error), code="invalid") from None


class WallClockField(forms.CharField):
    """A day and a time without a zone, as `<input type="datetime-local">` sends it."""

    def to_python(self, value: Any) -> Any:
        """Return the day and the time as a naive datetime; None if the field is empty.

        Raises:
            ValidationError: the value is not a day with a time.
        """
        text = super().to_python(value) or ""
        if not text:
            return None
        clock = CLOCK.fullmatch(text, 10)
        try:
            day = parse_day(text[:10])
            moment = time.fromisoformat(clock[1] if clock else "")
        except ValueError:
            raise ValidationError(_("Enter a day and a time."), code="invalid") from None
        return datetime.combine(day, moment)


class CalendarsField(forms.Field):
    """The ids of calendars."""

    widget = forms.SelectMultiple

    def to_python(self, value: Any) -> list[UUID]:
        """Return the ids.

        Raises:
            ValidationError: there are too many ids, or a value is not an id.
        """
        if len(value or ()) > MAX_CALENDARS:
            raise ValidationError(_("Choose fewer calendars."), code="max_length")
        try:
            return [UUID(each) for each in value or ()]
        except ValueError:
            raise ValidationError(_("This is not the id of a calendar."), code="invalid") from None


class ZoneForm(forms.Form):
    """A form with the zone of its times, and of the times in the response."""

    zone = forms.CharField(max_length=64, validators=[validate_zone])

    def clean(self) -> None:
        """Refuse times that the clocks of the zone skip."""
        super().clean()
        if "zone" not in self.cleaned_data:
            return
        tz = zone(self.cleaned_data["zone"])
        for name, field in self.fields.items():
            moment = self.cleaned_data.get(name)
            if not isinstance(field, WallClockField) or moment is None:
                continue
            if wall(self.instant(name), tz) != moment.isoformat(timespec="seconds"):
                self.add_error(
                    name, _("This time does not exist: the clocks are put forward on this day.")
                )

    def instant(self, name: str) -> datetime:
        """Return the first instant at which the clocks of the zone show the time of a field."""
        moment = self.cleaned_data[name]
        minutes = moment.hour * 60 + moment.minute
        return wall_clock(moment.date(), minutes, zone(self.cleaned_data["zone"]))


class SheetForm(ZoneForm):
    """The calendars and the days that a diary shows; `until` is the day after the last day."""

    calendar = CalendarsField()
    first = DayField()
    until = DayField()

    def clean(self) -> None:
        """Refuse a period that is empty or longer than `MAX_DAYS`."""
        super().clean()
        first, until = self.cleaned_data.get("first"), self.cleaned_data.get("until")
        if first and until and not 0 < (until - first).days <= MAX_DAYS:
            self.add_error("until", _("The period is empty or too long."))


class ShownBookingForm(ZoneForm):
    """A booking, and the version of it that the diary shows."""

    booking = forms.UUIDField()
    # See `version_of`. Only a page of BookIt 0.1.0 that is still open sends no version.
    version = forms.IntegerField(error_messages={"required": _("Reload the page and try again.")})


class MoveForm(ShownBookingForm):
    """A booking to move, and its new time."""

    start = WallClockField(label=_("New time"))


class BookForm(ZoneForm):
    """The start of a new booking, and its service, if one is chosen."""

    service = forms.UUIDField(required=False)
    start = WallClockField(label=_("Start"))


class CloseForm(ZoneForm):
    """A calendar, and the period in which to close it."""

    calendar = forms.UUIDField()
    start = WallClockField(label=_("From"))
    end = WallClockField(label=_("Until"))
    reason = forms.CharField(max_length=200, required=False)


class ReopenForm(ZoneForm):
    """Time off to delete, and its calendar."""

    calendar = forms.UUIDField()
    time_off = forms.UUIDField()
