"""The admin site's forms that publish slots and change the number of seats of a slot."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django import forms
from django.contrib.admin.sites import AdminSite
from django.db import models
from django.utils.dates import WEEKDAYS_ABBR
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from bookings.models import Slot
from bookings.slots import recurrence, wording
from bookings.slots.recurrence import MAX_STARTS, Rule, parse_rule
from bookit.adminsite.fields import DayField, UnitInput
from bookit.adminsite.pages import FIRST, StrictAutocomplete
from bookit.times import wall_clock, zone
from catalog.models import MAX_CAPACITY, Service

DAY = timedelta(days=1)
# The longest interval that the form accepts. A longer interval is probably a typing error.
MAX_INTERVAL = 52


class Repeat(models.TextChoices):
    """How a slot repeats."""

    ONCE = "once", gettext_lazy("Does not repeat")
    DAILY = "daily", gettext_lazy("Daily")
    WEEKLY = "weekly", gettext_lazy("Weekly")
    MONTHLY = "monthly", gettext_lazy("Monthly, on the same date")
    MONTHLY_BY_WEEKDAY = "nth", gettext_lazy("Monthly, on the same weekday")


class PublishForm(forms.Form):
    """The service, the first start in its calendar's zone, and how the slot repeats.

    The `cleaned_data` of a valid form also has the arguments `start_time`, `capacity` and `rrule`
    of `publish_slots`, and `pattern`, the recurrence in words (empty if there is none).
    """

    service = forms.ModelChoiceField(
        Service.objects.filter(is_active=True).select_related("calendar").order_by("title", "id"),
        label=gettext_lazy("Service"),
    )
    day = DayField(label=gettext_lazy("First day"))
    clock = forms.TimeField(
        label=gettext_lazy("Starts at"),
        widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"),
        help_text=gettext_lazy("In the time zone of the service's calendar."),
    )
    capacity = forms.IntegerField(
        label=gettext_lazy("Seats"),
        required=False,
        min_value=1,
        max_value=MAX_CAPACITY,
        help_text=gettext_lazy("If empty, as many as the service has."),
        widget=UnitInput(gettext_lazy("in each slot")),
    )
    repeat = forms.ChoiceField(
        label=gettext_lazy("Repeats"), initial=Repeat.ONCE, choices=Repeat.choices
    )
    interval = forms.IntegerField(
        label=gettext_lazy("Every"),
        required=False,
        min_value=1,
        max_value=MAX_INTERVAL,
        initial=1,
        widget=UnitInput(gettext_lazy("days, weeks or months")),
    )
    weekdays = forms.TypedMultipleChoiceField(
        label=gettext_lazy("On"),
        required=False,
        coerce=int,
        choices=[*WEEKDAYS_ABBR.items()],
        widget=forms.CheckboxSelectMultiple,
        help_text=gettext_lazy("If none is ticked, on the weekday of the first day."),
    )
    count = forms.IntegerField(
        label=gettext_lazy("Ends after"),
        widget=UnitInput(pgettext_lazy("unit", "slots")),
        required=False,
        min_value=1,
        max_value=MAX_STARTS,
        initial=10,
    )
    until = DayField(
        label=gettext_lazy("or ends on"),
        required=False,
        help_text=gettext_lazy("If you give a last day, the number of slots is ignored."),
    )

    def __init__(self, site: AdminSite, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        relation = Slot._meta.get_field("service")
        widget = StrictAutocomplete(relation, site, first=FIRST)
        widget.choices = self.fields["service"].choices  # type: ignore[attr-defined]
        self.fields["service"].widget = widget

    def clean(self) -> dict[str, Any]:
        """Turn the fields into the start and the rule that `publish_slots` takes."""
        cleaned: dict[str, Any] = self.cleaned_data
        if cleaned.get("repeat") == Repeat.ONCE:
            # The page hides these fields, and with them their errors.
            for name in ("interval", "count", "until"):
                self.errors.pop(name, None)
        elif cleaned.get("until"):
            self.errors.pop("count", None)
        if not {"service", "day", "clock", "repeat", "weekdays"} <= cleaned.keys():
            return cleaned
        first = _first_day(cleaned)
        cleaned["start_time"] = self._start(first, cleaned["clock"])
        cleaned["pattern"] = _pattern(cleaned, first)
        cleaned["rrule"] = None
        if cleaned["repeat"] != Repeat.ONCE and not self.errors:
            cleaned["rrule"] = self._rule(first)
        return cleaned

    def _start(self, day: date, clock: time) -> datetime:
        """Return the start of the first slot. Add an error if the clocks skip this time."""
        tz = zone(self.cleaned_data["service"].calendar.timezone)
        start = wall_clock(day, clock.hour * 60 + clock.minute, tz)
        if start.astimezone(tz).time() != clock.replace(second=0, microsecond=0):
            self.add_error("clock", _("The clocks skip this time on the day of the first slot."))
        return start.astimezone(UTC)

    def _rule(self, first: date) -> Rule | None:
        count, until = self.cleaned_data.get("count"), self.cleaned_data.get("until")
        if not (count or until):
            self.add_error("count", _("Give the number of slots, or the last day."))
            return None
        if until and until < first:
            self.add_error("until", _("The last day must not be before the first slot."))
            return None
        end = f"UNTIL={until:%Y%m%d}" if until else f"COUNT={count}"
        return parse_rule(f"{_parts(self.cleaned_data, first)};{end}")


class SeatsForm(forms.Form):
    """The form that changes the number of seats of a slot."""

    capacity = forms.IntegerField(
        label=gettext_lazy("Seats"),
        min_value=1,
        max_value=MAX_CAPACITY,
    )


def _first_day(cleaned: dict[str, Any]) -> date:
    """Return the first day of the series.

    This is the given day or, in a weekly series, the first ticked weekday from that day on.
    """
    day: date = cleaned["day"]
    if cleaned["repeat"] == Repeat.WEEKLY and cleaned["weekdays"]:
        while day.weekday() not in cleaned["weekdays"]:
            day += DAY
    return day


def _position(day: date) -> int:
    """Return the position of a day among the same weekdays of its month: 1 to 4, or -1 for a fifth.

    In a rule, -1 means the last. Every month has a last Tuesday, but not every month has a fifth.
    """
    number = (day.day - 1) // 7 + 1
    return number if number <= 4 else -1


def _parts(cleaned: dict[str, Any], first: date) -> str:
    """Return the recurrence rule without its end."""
    interval = f"INTERVAL={cleaned.get('interval') or 1}"
    match cleaned["repeat"]:
        case Repeat.DAILY:
            return f"FREQ=DAILY;{interval}"
        case Repeat.WEEKLY:
            days = sorted(cleaned["weekdays"]) or [first.weekday()]
            names = ",".join(recurrence.WEEKDAYS[day] for day in days)
            return f"FREQ=WEEKLY;{interval};BYDAY={names}"
        case Repeat.MONTHLY:
            return f"FREQ=MONTHLY;{interval}"
        case _:  # Repeat.MONTHLY_BY_WEEKDAY
            weekday = recurrence.WEEKDAYS[first.weekday()]
            return f"FREQ=MONTHLY;{interval};BYDAY={_position(first)}{weekday}"


def _pattern(cleaned: dict[str, Any], first: date) -> str:
    """Return the recurrence in words, without its end."""
    interval = cleaned.get("interval") or 1
    match cleaned["repeat"]:
        case Repeat.ONCE:
            return ""
        case Repeat.DAILY:
            return wording.days_in_words(interval)
        case Repeat.WEEKLY:
            return wording.weeks_in_words(
                interval, sorted(cleaned["weekdays"]) or [first.weekday()]
            )
        case _:
            by_weekday = cleaned["repeat"] == Repeat.MONTHLY_BY_WEEKDAY
            return wording.months_in_words(
                interval,
                day=first.day,
                weekday=first.weekday(),
                position=_position(first) if by_weekday else None,
            )
