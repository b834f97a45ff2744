"""The forms for opening hours and time off, on the page of a calendar in the admin site."""

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.dates import WEEKDAYS
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from bookit.adminsite.fields import LocalDateTimeField
from bookit.adminsite.refusals import Refused
from bookit.adminsite.words import dated
from bookit.errors import Invalid
from bookit.times import format_wall_clock, parse_wall_clock, zone, zone_names
from catalog import services
from catalog.extensions import MAX_DESCRIBED, Affected, Described, described
from catalog.models import Calendar, OpeningHours, TimeOff
from catalog.opening import CLOSES_TOO_EARLY, MINUTES_A_DAY

# The page of a calendar shows at most this many periods of time off at a time. Each sends up to 13
# inputs. A hundred spans of opening hours, the most that the API accepts, send 400. Django accepts
# 1,000 inputs (DATA_UPLOAD_MAX_NUMBER_FIELDS).
MAX_PERIODS = 40
STALE_HOURS = gettext_lazy(
    "Somebody else has changed the opening hours since you opened this page. Below are the hours as"
    " you entered them. Save again to replace theirs."
)
# Matches times of day as people write them: 9, 9:30, 9.30, 9h30, 930, 0930, 5pm, 5:30 pm.
WRITTEN = re.compile(r"(\d{1,2}?)[:.h]?([0-5]\d)?\s*([ap]m)?", re.ASCII | re.IGNORECASE)


class WallClockFormField(forms.CharField):
    """A time of day, stored as minutes after midnight. People may write it in several ways."""

    def prepare_value(self, value: Any) -> Any:
        """Return the time as text, for the input."""
        return format_wall_clock(value) if isinstance(value, int) else value

    def to_python(self, value: Any) -> Any:
        """Return the minutes after midnight, or None if the input is empty."""
        text = str(value or "").strip()
        if not text:
            return None
        try:
            return parse_wall_clock(_in_full(text))
        except ValueError as error:
            raise ValidationError(str(error), code="invalid") from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the time was changed."""
        try:
            return bool(self.to_python(data) != initial)
        except ValidationError:
            return True


def _in_full(text: str) -> str:
    """Return a time of day as `09:30`, or the text itself if it cannot be read."""
    match = WRITTEN.fullmatch(text)
    if match is None:
        return text
    hour, minute, half = int(match[1]), match[2] or "00", (match[3] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            return text
        hour = hour % 12 + (12 if half == "pm" else 0)
    return f"{hour:02}:{minute}"


def _clock_field(label: Any) -> WallClockFormField:
    attrs = {"size": 6, "maxlength": 8, "list": "times-of-day", "autocomplete": "off"}
    return WallClockFormField(required=False, label=label, widget=forms.TextInput(attrs=attrs))


class OpeningHoursForm(forms.ModelForm):
    """The form for a span of opening hours on a weekday. Empty times mean that there is no span."""

    weekday = forms.TypedChoiceField(
        coerce=int, choices=[*WEEKDAYS.items()], widget=forms.HiddenInput
    )
    opens = _clock_field(gettext_lazy("from"))
    closes = _clock_field(gettext_lazy("to"))

    class Meta:
        model = OpeningHours
        fields = ["weekday", "opens", "closes"]

    def has_changed(self) -> bool:
        """Return whether the form contains a time. Half a span is an error, so it counts."""
        return any(self[name].data for name in ("opens", "closes"))

    def clean(self) -> None:
        """Refuse a span without one of its times, and a span that does not end after it begins.

        The messages are clearer than Django's.
        """
        super().clean()
        if self.errors:
            return
        opens, closes = self.cleaned_data["opens"], self.cleaned_data["closes"]
        if opens is None or closes is None:
            self.add_error(
                "opens" if opens is None else "closes",
                _("Give both times, or neither if the calendar is closed."),
            )
        elif closes <= opens:
            self.add_error("closes", str(CLOSES_TOO_EARLY))

    def validate_constraints(self) -> None:
        """Do nothing: the formset compares the new spans with each other.

        Django 6.0 and later call this method. Django's own method would compare the span with the
        stored spans, all of which `save_formset` replaces.
        """


class Weekday(NamedTuple):
    """A row of the weekly grid."""

    number: int
    name: str
    spans: list[Any]


class InZone:
    """A mixin for formsets of a calendar: the time zone in which the page shows times."""

    instance: Calendar

    @property
    def is_new(self) -> bool:
        """Whether the calendar is not yet stored, so that its zone is chosen on the same page."""
        return self.instance._state.adding

    @cached_property
    def zone_name(self) -> str:
        """Return the zone in which the page shows times."""
        return self.instance.timezone

    @property
    def now(self) -> datetime:
        """The present time in the zone of the page."""
        return timezone.now().astimezone(zone(self.zone_name)).replace(tzinfo=None)


class OpeningHoursFormSet(InZone, forms.BaseInlineFormSet):
    """The forms for all opening hours of a calendar, as a weekly grid.

    The page sends all spans, and saving replaces all stored rows. The page therefore also sends the
    hours that it showed. If both the user and somebody else have changed the hours since then, the
    formset says so.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Each day has an empty span for browsers without scripts. The page's script removes it.
        kwargs.setdefault("initial", [{"weekday": number} for number in WEEKDAYS])
        super().__init__(*args, **kwargs)
        self.stored = self._read()

    def initial_form_count(self) -> int:
        """Return the number of forms with a stored span. In a submitted formset, there are none."""
        return 0 if self.is_bound else super().initial_form_count()

    def add_fields(self, form: Any, index: int | None) -> None:
        """Add the fields of the formset. A submitted form gets no field for the id of a row."""
        super().add_fields(form, index)
        if self.is_bound:
            del form.fields["id"]

    def clean(self) -> None:
        """Refuse overlapping spans of a day, and changes on a page that shows outdated hours.

        An overlap is an error of the later span.
        """
        super().clean()
        valid = sorted(self._valid(), key=lambda form: _span(form)["opens"])
        for number, name in WEEKDAYS.items():
            of_day = [form for form in valid if form.cleaned_data["weekday"] == number]
            for first, second in pairwise(of_day):
                if _span(second)["opens"] < _span(first)["closes"]:
                    text = _("The opening hours of %(day)s overlap.") % {"day": name}
                    second.add_error(None, text)
                    break
        if self.has_changed() and self.is_stale():
            raise ValidationError(STALE_HOURS)

    def shown(self) -> str:
        """Return the stored hours that the user has seen, as the text that the page sends back.

        If the user left the hours alone, the page says nothing about what somebody else has
        changed, so these are still the hours that it showed before.
        """
        seen = self._seen()
        return _encoded(self.stored) if seen is None or self.has_changed() else seen

    def is_stale(self) -> bool:
        """Return whether the stored hours differ from those that the page showed."""
        seen = self._seen()
        return seen is not None and seen != _encoded(self.stored)

    def _seen(self) -> str | None:
        """Return the hours that the page showed, or None if the form does not contain them."""
        return self.data.get(f"{self.prefix}-shown") if self.is_bound else None

    def check_again(self) -> None:
        """Check that nobody has changed the hours, now that the calendar is locked.

        Raises:
            Refused: somebody else has changed the hours.
        """
        self.stored = self._read()
        if self.is_stale():
            raise Refused(STALE_HOURS)

    def has_changed(self) -> bool:
        """Return whether the entered hours differ from both the stored and the shown hours."""
        entered = self._entered()
        return entered != self.stored and _encoded(entered) != self._seen()

    def spans(self) -> list[dict[str, int]]:
        """Return the valid spans that are neither empty nor marked for deletion."""
        return [_span(form) for form in self._valid()]

    def note_changes(self) -> None:
        """Set the attributes from which Django writes the log entry about the changes."""
        before = {*self.stored}
        after = {*self._entered()} if self.has_changed() else before
        self.new_objects = [_row(span) for span in sorted(after - before)]
        self.changed_objects: list[Any] = []
        self.deleted_objects = [_row(span) for span in sorted(before - after)]

    def days(self) -> list[Weekday]:
        """Return the rows of the weekly grid, each with the forms of its spans."""
        placed = [(str(form["weekday"].value()), form) for form in self.forms]
        return [
            Weekday(number, str(name), [form for day, form in placed if day == str(number)])
            for number, name in WEEKDAYS.items()
        ]

    def stored_in_words(self) -> str:
        """Return the stored hours, for people whose page is out of date."""
        return ", ".join(str(_row(span)) for span in self.stored) or _("always open")

    def times_of_day(self) -> list[str]:
        """Return the times of day that the inputs suggest."""
        return [format_wall_clock(minutes) for minutes in range(0, MINUTES_A_DAY + 1, 30)]

    def _entered(self) -> list[tuple[int, ...]]:
        return sorted((*span.values(),) for span in self.spans())

    def _read(self) -> list[tuple[int, ...]]:
        if self.is_new:
            return []
        return sorted(self.instance.hours.values_list("weekday", "opens", "closes"))

    def _valid(self) -> list[Any]:
        return [
            form
            for form in self.forms
            if form.is_valid()
            and form.cleaned_data.get("opens") is not None
            and not form.cleaned_data.get("DELETE")
        ]


def _span(form: Any) -> dict[str, int]:
    return {name: form.cleaned_data[name] for name in ("weekday", "opens", "closes")}


def _encoded(spans: Iterable[tuple[int, ...]]) -> str:
    return " ".join(f"{day}:{opens}-{closes}" for day, opens, closes in spans)


def _row(span: tuple[int, ...]) -> OpeningHours:
    weekday, opens, closes = span
    return OpeningHours(weekday=weekday, opens=opens, closes=closes)


class TimeOffForm(forms.ModelForm):
    """The form for a period in which a calendar is closed.

    If a new or changed period overlaps bookings that have not ended, the page lists them, and the
    form is valid only if `keep` is ticked.
    """

    start_time = LocalDateTimeField(label=gettext_lazy("from"))
    end_time = LocalDateTimeField(label=gettext_lazy("until"), closing=True)
    keep = forms.BooleanField(
        required=False,
        label=gettext_lazy("Close the calendar anyway. These bookings stay as they are."),
    )
    # `clean` sets the bookings in the period, and `set_context` sets the user who sees them.
    affected = Affected()
    viewer: Any = None
    calendar: Calendar

    class Meta:
        model = TimeOff
        fields = ["start_time", "end_time", "reason"]

    def set_context(self, calendar: Calendar, zone_name: str, viewer: Any) -> None:
        """Set the calendar of the form, the zone of its times, and the user who sees it."""
        self.calendar, self.viewer = calendar, viewer
        for name in ("start_time", "end_time"):
            field: Any = self.fields[name]
            field.tz = zone(zone_name)

    def clean(self) -> None:
        """Refuse the periods that the API refuses, and ask about the bookings in the period.

        A field that the user left alone keeps its stored value, which may be newer than the page.
        """
        super().clean()
        if "id" in self.errors:
            # Somebody has deleted the time off, so it has no stored values. The error says so.
            return
        columns = {"start_time", "end_time", "reason"}
        for name in columns & {*self.cleaned_data} - {*self.changed_data}:
            self.cleaned_data[name] = getattr(self.instance, name)
        start, end = self.cleaned_data.get("start_time"), self.cleaned_data.get("end_time")
        if not (start and end):
            return
        try:
            services.check_time_off(start, end)
        except Invalid as error:
            self.add_error(None, error.errors)
            return
        # A calendar that is not stored yet has no bookings.
        is_stored = not self.calendar._state.adding
        if is_stored and {"start_time", "end_time"} & {*self.changed_data}:
            self.affected = services.affected_bookings(
                calendar=self.calendar, period=(start, end), at=timezone.now()
            )
        if self.affected.count and not self.cleaned_data.get("keep"):
            self.add_error("keep", _("Nothing is saved yet. Look at these bookings first."))

    def period(self) -> list[str]:
        """Return the start and the end of stored time off, for people who may only read them."""
        tz = self.fields["start_time"].tz  # type: ignore[attr-defined]
        ends = (self.instance.start_time, self.instance.end_time)
        return [dated(each.astimezone(tz), "DAY_FORMAT") for each in ends]

    def headline(self) -> str:
        """Return how many bookings are in the period."""
        count = self.affected.count
        text = ngettext(
            "%(count)d booking is in this time:", "%(count)d bookings are in this time:", count
        )
        return text % {"count": count}

    def described(self) -> list[Described]:
        """Return the first affected bookings, as the viewer may see them."""
        tz = self.fields["start_time"].tz  # type: ignore[attr-defined]
        return described(self.affected, viewer=self.viewer, tz=tz)

    def more(self) -> int:
        """Return how many affected bookings are not named."""
        return max(0, self.affected.count - MAX_DESCRIBED)


class TimeOffFormSet(InZone, forms.BaseInlineFormSet):
    """The forms for the time off of a calendar, in the zone that the page names."""

    # The user who sees the page, and which of the pages of periods it shows. The inline sets both.
    viewer: Any = None
    page = 1
    queryset: Any
    most = MAX_PERIODS

    def get_queryset(self) -> Any:
        """Return the time off that the page shows, or all that a submitted form can change.

        A period that the page showed may now be on a later page, because somebody else has added
        earlier periods.
        """
        if not self.is_bound and not hasattr(self, "_queryset"):
            last = self.page * MAX_PERIODS
            self._queryset = super().get_queryset()[last - MAX_PERIODS : last]
        return super().get_queryset()

    def earlier(self) -> int | None:
        """Return the number of the page with earlier periods, or None if there is no such page."""
        return self.page - 1 or None

    def later(self) -> int | None:
        """Return the number of the page with later periods, or None if there is no such page."""
        is_full = self.initial_form_count() >= MAX_PERIODS
        has_more = is_full and self.queryset.count() > self.page * MAX_PERIODS
        return self.page + 1 if has_more else None

    @cached_property
    def zone_name(self) -> str:
        """Return the zone in which the page shows times, and in which people entered them.

        If the page also changes the zone of the calendar, this is the old zone: the page showed the
        old zone while people entered the times, and a change of zone does not move time off.
        """
        shown = self.data.get(f"{self.prefix}-zone") if self.is_bound and not self.is_new else None
        return shown if shown in zone_names() else self.instance.timezone

    def add_fields(self, form: Any, index: int | None) -> None:
        """Add the fields of the formset, and set the calendar, zone and viewer of the form."""
        super().add_fields(form, index)
        form.fields["id"].error_messages["invalid_choice"] = _(
            "This time off has ended, or somebody has deleted it. Remove it here, too."
        )
        form.set_context(self.instance, self.zone_name, self.viewer)
