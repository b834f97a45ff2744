"""Filters and ordering of lists by query parameters, which are validated strictly."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache, partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet, TextField
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from django_filters.constants import EMPTY_VALUES
from django_filters.fields import BaseCSVField
from django_filters.utils import translate_validation
from django_filters.widgets import BaseCSVWidget
from drf_spectacular.drainage import set_override
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from bookit.database.prepared import Bound, Change
from bookit.errors.refusals import refuse
from bookit.money import is_plain
from bookit.times import DAY_OR_INSTANT, begin, end, parse_day_or_instant

if TYPE_CHECKING:
    from rest_framework.views import APIView


class FilterBackend(filters.DjangoFilterBackend):
    """Narrows a prepared list to the rows that pass the filters of the request."""

    def filter_queryset(  # type: ignore[override]
        self, request: Request, queryset: Bound, view: "APIView"
    ) -> Any:
        """Return the rows that pass the filters of the request.

        Raises:
            ValidationError: names each parameter whose value is invalid.
        """
        filterset: Any = getattr(view, "filterset_class", None)
        query = request.query_params
        if filterset is None or not query:
            return queryset
        named = [name for name in filterset.base_filters if name in query]
        return filterset.narrowed(queryset, named, request) if named else queryset


class FilterSet(filters.FilterSet):
    """Filters whose values, except choices (`CHOICES`), are parameters of a prepared query.

    django-filter creates a form, and the ORM writes the SQL, for each request. Together, they take
    several times as long as the rest of a request for a list. Here, all requests share the form
    fields, and requests with the same filters share their SQL.

    Most filters have one parameter, their value. If a filter has a method `parts`, this method
    turns the value into the parameters, and the method `filter` gets them as a tuple.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse filters that would have to apply to every request.

        Raises:
            TypeError: a filter is required, or has a default.
        """
        super().__init_subclass__(**options)
        for name, each in cls.declared_filters.items():
            if each.extra.get("required") or each.extra.get("initial") is not None:
                raise TypeError(
                    f"{cls.__name__}.{name} would apply only to requests that name it. Narrow the"
                    " list in the view's `listed` instead."
                )

    @classmethod
    def narrowed(cls, rows: Bound, named: Sequence[str], request: Request) -> Any:
        """Return the rows that pass the filters that a request names.

        Raises:
            ValidationError: names each parameter whose value is invalid.
        """
        shared = _shared(cls)
        query = request.query_params
        try:
            values = {
                name: field.clean(field.widget.value_from_datadict(query, {}, name))
                for name in named
                for field in (shared[name].field,)
            }
        except ValidationError:
            # The form reports the errors of all parameters.
            error: Any = translate_validation(cls(query, request=request).errors)
            raise error from None
        given = {name: value for name, value in values.items() if value not in EMPTY_VALUES}
        return cls.applied(rows, given, request)

    @classmethod
    def applied(cls, rows: Bound, values: dict[str, Any], request: Request) -> Any:
        """Return the rows that pass the filters. `values` are the validated values, by filter."""
        shared = _shared(cls)
        conditions: list[tuple[str, Any, tuple[str, ...]]] = []
        parameters: dict[str, Any] = {}
        for name, value in values.items():
            each = shared[name]
            if isinstance(each, CHOICES):
                chosen = tuple(sorted(set(value))) if isinstance(value, list) else value
                conditions.append((name, chosen, ()))
            else:
                parts = each.parts(value, request) if hasattr(each, "parts") else (value,)
                names = tuple(f"{name}_{number}" for number in range(len(parts)))
                conditions.append((name, None, names))
                parameters.update(zip(names, parts, strict=True))
        if not conditions:
            return rows
        change = Change(
            (cls, *conditions),
            partial(_filter, shared, conditions),
            dict.fromkeys(parameters, PART),
        )
        return rows.changed(change, **parameters)


# Filters whose values are constants in the SQL, not parameters. PostgreSQL can then plan for the
# value: few bookings are held, but most are completed. Each combination of choices is a statement
# of its own; `bookit.database.prepared.MAX_KEPT` limits how many are kept.
CHOICES = (filters.ChoiceFilter, filters.TypedChoiceFilter)


# The ORM requires a field for each parameter. PostgreSQL itself infers the type.
PART = TextField()


@cache
def _shared(cls: Any) -> Mapping[str, filters.Filter]:
    """Return the filters of a class, shared by all requests. They keep no state."""
    filterset: FilterSet = cls({})
    return filterset.filters


def _filter(
    shared: Mapping[str, filters.Filter],
    conditions: Sequence[tuple[str, Any, tuple[str, ...]]],
    rows: QuerySet[Any],
    **places: Any,
) -> QuerySet[Any]:
    """Return the rows that meet all conditions.

    A condition has the name of a filter, and its constant or the names of its parameters.
    """
    for name, constant, names in conditions:
        each = shared[name]
        parts = tuple(places[part] for part in names)
        value = constant if not parts else parts if hasattr(each, "parts") else parts[0]
        rows = each.filter(rows, value)
    return rows


def with_default(value: Any, each: filters.Filter) -> filters.Filter:
    """Return the filter, after setting the default that the OpenAPI document shows for it.

    The view itself applies this default if the request does not name the filter.
    """
    each.default = value  # type: ignore[attr-defined]
    return each


class DayOrInstantField(forms.CharField):
    """A field for a date or an instant; see `parse_day_or_instant`."""

    parse: Callable[[str], date] = staticmethod(parse_day_or_instant)

    def to_python(self, value: Any) -> Any:
        """Return the date or the instant; None if the value is empty."""
        text = super().to_python(value)
        if not text:
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            # Pass the text as a parameter: Django formats the message with %, and the text may
            # contain "%".
            raise ValidationError("%(why)s", "invalid", {"why": error}) from None


class DayOrInstantFilter(filters.Filter):
    """A filter by a date or an instant.

    A date means the beginning of that day in the request's time zone or, if `ends` is true, the end
    of that day.
    """

    field_class = DayOrInstantField

    def __init__(self, *args: Any, ends: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ends = ends
        # Add the help text here: drf-spectacular leaves it out if a filter overrides the schema.
        set_override(self, "field", {**DAY_OR_INSTANT, "description": kwargs["help_text"]})

    def parts(self, value: date | datetime, request: Request) -> tuple[datetime]:
        """Return the given instant, or the start or end of the given day."""
        tz = getattr(request, "zone", UTC)
        return ((end if self.ends else begin)(value, tz),)

    def filter(self, queryset: QuerySet[Any], value: tuple[Any]) -> QuerySet[Any]:
        """Return the rows that pass the filter."""
        [instant] = value
        return super().filter(queryset, instant)


# Filters for rows that have a start and an end. They keep the rows that overlap the given period.
# Filter sets add them to `base_filters`, because `from` is a Python keyword and cannot be a class
# attribute.
PERIOD_FILTERS: dict[str, filters.Filter] = {
    "from": DayOrInstantFilter(
        field_name="end_time",
        lookup_expr="gt",
        help_text=(
            "Only those that end after this time. A date means the start of that day in "
            "the request's zone."
        ),
    ),
    "to": DayOrInstantFilter(
        field_name="start_time",
        lookup_expr="lt",
        ends=True,
        help_text=(
            "Only those that start before this time. A date means the end of that day in "
            "the request's zone."
        ),
    ),
}


class CommaSeparatedWidget(BaseCSVWidget):
    """Reads the values of a parameter that separates them by commas, and may be repeated."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        """Return the values; None if the request does not contain the parameter."""
        texts = data.getlist(name)
        return ",".join(texts).split(",") if texts else None


class CommaSeparatedField(BaseCSVField):
    """A field that checks the number of its values before it validates any of them."""

    base_widget_class = CommaSeparatedWidget

    def clean(self, value: Any) -> Any:
        """Return the validated values; None if the request does not contain the parameter."""
        most = len(self.choices)  # type: ignore[attr-defined]
        if value is not None and len(value) > most:
            raise ValidationError(_("Send at most %(most)d values."), "max_length", {"most": most})
        if value is not None and "" in value:
            # An empty value would match no row, and the client might not notice.
            text = self.error_messages["invalid_choice"]
            raise ValidationError(text, "invalid_choice", {"value": '""'})
        return super().clean(value)


class CommaSeparatedChoices(filters.BaseInFilter, filters.ChoiceFilter):
    """A filter by one or more choices, separated by commas."""

    base_field_class = CommaSeparatedField

    def __init__(self, **options: Any) -> None:
        super().__init__(empty_label=None, **options)


class RepeatedTextField(forms.Field):
    """A field for the values of a parameter that may be repeated."""

    widget = forms.MultipleHiddenInput

    def __init__(self, *, max_length: int, most: int, **options: Any) -> None:
        super().__init__(**options)
        self.max_length, self.most = max_length, most

    def clean(self, value: Any) -> list[str]:
        """Return the texts without surrounding whitespace. Empty texts are left out."""
        texts = [text.strip() for text in value or ()]
        if len(texts) > self.most:
            raise ValidationError(
                _("Send at most %(most)d values."), "max_length", {"most": self.most}
            )
        if any(len(text) > self.max_length for text in texts):
            limit = {"limit": self.max_length}
            raise ValidationError(_("Send at most %(limit)d characters."), "max_length", limit)
        return [text for text in texts if text]


def any_of(column: str, texts: Sequence[Any]) -> Q:
    """Return the condition that a column has one of the texts, ignoring case."""
    return reduce(or_, (Q(**{f"{column}__iexact": text}) for text in texts))


class AnyOfFilter(filters.Filter):
    """A filter by any of the values of a parameter that may be repeated, ignoring case."""

    field_class = RepeatedTextField

    def __init__(self, *args: Any, max_length: int, most: int = 20, **kwargs: Any) -> None:
        super().__init__(*args, max_length=max_length, most=most, **kwargs)
        items = {"type": "string", "maxLength": max_length}
        shape = {"type": "array", "items": items, "maxItems": most}
        set_override(self, "field", {**shape, "description": kwargs["help_text"]})

    def parts(self, value: list[str], request: Request) -> tuple[str, ...]:
        """Return the values."""
        return tuple(value)

    def filter(self, queryset: QuerySet[Any], value: tuple[Any, ...]) -> QuerySet[Any]:
        """Return the rows whose column has one of the values."""
        return queryset.filter(any_of(str(self.field_name), value))


class DecimalField(forms.DecimalField):
    """A field for a decimal in ASCII digits; see `is_plain`."""

    def to_python(self, value: Any) -> Any:
        """Return the decimal; None if the value is empty."""
        if not is_plain(str(value)):
            raise ValidationError(self.error_messages["invalid"], "invalid")
        return super().to_python(value)


class DecimalFilter(filters.NumberFilter):
    """A filter by a decimal in ASCII digits."""

    field_class = DecimalField


class UUIDField(forms.UUIDField):
    """A field for a UUID in ASCII digits; Python's `UUID` accepts digits of any script."""

    def to_python(self, value: Any) -> Any:
        """Return the UUID; None if the value is empty."""
        if not str(value).isascii():
            raise ValidationError(self.error_messages["invalid"], "invalid")
        return super().to_python(value)


class UUIDFilter(filters.UUIDFilter):
    """A filter by a UUID in ASCII digits."""

    field_class = UUIDField


class OrderingBackend(BaseFilterBackend):
    """Orders by the view's `ordering_fields`, which maps names to columns, and then by id."""

    def filter_queryset(self, request: Request, queryset: Any, view: "APIView") -> Any:
        """Return the rows in the requested order, or in the view's `default_ordering`.

        Raises:
            ValidationError: the `ordering` parameter is invalid.
        """
        requested = request.query_params.get("ordering")
        order: Sequence[str]
        if requested:
            order = _columns(requested.split(","), getattr(view, "ordering_fields", {}))
        else:
            order = getattr(view, "default_ordering", ())
        if not order:
            return queryset
        return queryset.ordered((*order, "-id" if order[-1].startswith("-") else "id"))


def _columns(names: list[str], fields: dict[str, str]) -> list[str]:
    """Return the columns to order by, with `-` for descending.

    Raises:
        ValidationError: a name is not a field, or a field is named twice.
    """
    order: list[str] = []
    seen: set[str] = set()
    for name in names:
        field = name.removeprefix("-")
        if field not in fields:
            known = ", ".join(sorted(fields))
            raise refuse(
                "ordering",
                _("Must be one or more of %(known)s; prefix a field with - for descending order.")
                % {"known": known},
            )
        if field in seen:
            raise refuse(
                "ordering",
                _("Each field may be named only once; %(field)s is named twice.")
                % {"field": field},
            )
        seen.add(field)
        order.append(f"-{fields[field]}" if name.startswith("-") else fields[field])
    return order


# Options of a `TypedChoiceFilter` that accepts only `true` and `false`.
YES_NO: dict[str, Any] = {
    "choices": [("true", "true"), ("false", "false")],
    "coerce": lambda text: text == "true",
}
