"""Form fields and widgets of the admin site, for example for time zones and local times."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from bookit.times import day_end, day_start, wall_clock, zone_names

# The areas by which zones are grouped, for example Europe in Europe/Lisbon. UTC comes before the
# groups, and all other zones come after them.
AREAS = {
    "Africa",
    "America",
    "Antarctica",
    "Arctic",
    "Asia",
    "Atlantic",
    "Australia",
    "Europe",
    "Indian",
    "Pacific",
}
MIDNIGHT = time.min
DAY = timedelta(days=1)


@lru_cache(maxsize=1)
def zone_choices() -> list[tuple[str, Any]]:
    """Return all time zones as choices, grouped by their area.

    In a group, the label of a zone omits the area, because a browser finds an option by the first
    letters of its label.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    others = []
    for name in sorted(zone_names() - {"UTC"}):
        area, _slash, place = name.partition("/")
        if place and area in AREAS:
            groups.setdefault(area, []).append((name, place.replace("_", " ")))
        else:
            others.append((name, name))
    return [("UTC", "UTC"), *groups.items(), (_("Other"), others)]  # type: ignore[list-item]


def zone_field(
    db_field: Any, *, label: Any = None, help_text: Any = None, **_others: Any
) -> forms.ChoiceField:
    """Return the form field of a column that contains the name of a time zone."""
    return forms.ChoiceField(
        choices=zone_choices,
        label=label or capfirst(db_field.verbose_name),
        help_text=help_text or db_field.help_text,
        initial=db_field.get_default(),
    )


class UnitInput(forms.NumberInput):
    """An input for a number, followed by its unit."""

    template_name = "bookit/unit_input.html"

    def __init__(self, unit: Any) -> None:
        super().__init__()
        self.unit = unit

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        """Return the context of the template, with the unit."""
        context = super().get_context(name, value, attrs)
        context["widget"]["unit"] = self.unit
        return context


class SuggestingInput(forms.TextInput):
    """An input for text that suggests texts; people may enter any other text.

    Args:
        suggestions: returns the texts; called each time the input is shown.
    """

    template_name = "bookit/suggesting_input.html"

    def __init__(self, suggestions: Callable[[], Sequence[str]]) -> None:
        super().__init__()
        self.suggestions = suggestions

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        """Return the context of the template, with the texts."""
        context = super().get_context(name, value, {**(attrs or {}), "list": f"{name}-suggestions"})
        context["widget"]["suggestions"] = self.suggestions()
        return context


class GroupedCheckboxes(forms.CheckboxSelectMultiple):
    """Checkboxes, grouped if the choices are grouped. If there are no choices, a text says so."""

    template_name = "bookit/grouped_checkboxes.html"


class LinesField(forms.CharField):
    """A text with several lines.

    Browsers send CRLF at the end of each line. `max_length` would count each CRLF as two
    characters, although browsers and clients of the API count one.
    """

    def to_python(self, value: Any) -> Any:
        """Return the text with the line ends that clients of the API send."""
        text: str | None = super().to_python(value)
        return text.replace("\r\n", "\n") if text else text

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the text was changed. Other line ends are no change."""
        return super().has_changed(self.to_python(initial), data)


def validate_year(day: date) -> None:
    """Accept only the years that the API accepts."""
    if not 1900 <= day.year < 3000:
        # If the code were "invalid", Django would replace this message with the field's own message
        # for that code.
        raise ValidationError(_("Must be in the years 1900 to 2999."), code="year")


class DayField(forms.DateField):
    """A day, for which browsers show their own date picker."""

    widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"})
    default_validators = [validate_year]


class ShownDateTime(forms.HiddenInput):
    """Keeps the date and the time that a `LocalDateTimeField` showed, as one text.

    Django calls this the hidden initial value; see `bookit.adminsite.stale`. Django's own hidden
    widget has two inputs. When Django shows a form with errors again, it keeps the hidden initial
    value only if that is a single input. It would fill two inputs with what was entered.
    """

    def format_value(self, value: Any) -> str | None:
        """Return the date and the time as one text."""
        return " ".join(str(each) for each in value or () if each is not None) or None

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[str]:
        """Return the date and the time, which is empty for a whole day."""
        day, _space, clock = str(data.get(name) or "").partition(" ")
        return [day, clock]


class LocalDateTimeField(forms.SplitDateTimeField):
    """A date and a time in the zone `tz`, which the form sets.

    A date without a time stands for the whole day. A time that the clocks skip or show twice is
    read like opening hours; see `bookit.times.wall_clock`.

    Args:
        closing: whether the field is the end of a period. The end of a whole day is the midnight
            at which the day ends.
    """

    tz: tzinfo = UTC
    hidden_widget = ShownDateTime

    def __init__(self, *, closing: bool = False, label: Any = None) -> None:
        self.closing = closing
        labels: tuple[Any, Any] = (
            (_("Date of the end"), _("Time of the end"))
            if closing
            else (_("Date of the start"), _("Time of the start"))
        )
        super().__init__(
            label=label,
            require_all_fields=False,
            error_messages={"incomplete": _("Enter a date.")},
            # The browser's own inputs need no script, and people know them from their phones.
            widget=forms.SplitDateTimeWidget(
                date_attrs={"type": "date", "aria-label": labels[0]},
                time_attrs={"type": "time", "aria-label": labels[1]},
                date_format="%Y-%m-%d",
            ),
        )
        self.fields[1].required = False

    def compress(self, data_list: Sequence[Any]) -> datetime | None:  # type: ignore[override]
        """Return the instant at which the clocks of the zone show this date and time.

        Return None if the field is empty.

        Raises:
            ValidationError: the year is not from 1900 to 2999.
        """
        if not data_list:
            return None
        day, clock = data_list
        validate_year(day)
        if clock is None:
            return day_end(day, self.tz) if self.closing else day_start(day, self.tz)
        rest = timedelta(seconds=clock.second, microseconds=clock.microsecond)
        return wall_clock(day, clock.hour * 60 + clock.minute, self.tz) + rest

    def prepare_value(self, value: Any) -> Any:
        """Return the date and the time that show an instant; the time is None for a whole day."""
        return self._shown(value) if isinstance(value, datetime) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the entered date and time differ from those that the inputs had first.

        Args:
            initial: an instant, or the date and the time that a page showed.
        """
        if not isinstance(initial, datetime) and not any(initial or []):
            return any(data or [])
        try:
            entered = self.clean(data)
            before = initial if isinstance(initial, datetime) else self.clean(initial)
        except ValidationError:
            return True
        return entered is None or before is None or self._shown(entered) != self._shown(before)

    def _shown(self, moment: datetime) -> list[date | time | None]:
        local = moment.astimezone(self.tz).replace(tzinfo=None, microsecond=0)
        if local.time() != MIDNIGHT:
            return [local.date(), local.time()]
        return [local.date() - DAY if self.closing else local.date(), None]
