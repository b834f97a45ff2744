"""Serializers and fields that validate strictly and represent rows as dictionaries."""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, ClassVar

from django.db.models import DecimalField as DecimalColumn
from django.db.models import Model, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers
from rest_framework.fields import empty

from bookit.money import is_plain

# An error names at most this many unknown fields. A body of 1 MiB can contain 100,000 of them.
MAX_UNKNOWN_FIELDS = 20

AnyField = serializers.Field[Any, Any, Any, Any]


def _is_integer(value: Any) -> bool:
    # In JSON Schema, 30.0 is an integer, too.
    return type(value) is int or (type(value) is float and value.is_integer())


# For each class of fields: a function that returns whether a value has the JSON type that the
# OpenAPI document names, and the message for a value of another type. DRF itself also accepts "30"
# for a number, 0 for a boolean and 0 for a text, which hides mistakes. Decimals are not in the
# table: they are documented as strings, but a number is accepted too, because its meaning is clear.
# All other classes of fields check the type themselves.
JSON_TYPES: dict[type[AnyField], tuple[Callable[[Any], bool], Any]] = {
    serializers.BooleanField: (
        lambda value: type(value) is bool,
        gettext_lazy("Must be true or false."),
    ),
    serializers.IntegerField: (_is_integer, gettext_lazy("Must be a JSON integer.")),
    **dict.fromkeys(
        (serializers.CharField, serializers.ChoiceField),
        (lambda value: isinstance(value, str), gettext_lazy("Must be a JSON string.")),
    ),
    # Python's `UUID` accepts digits of any script.
    serializers.UUIDField: (
        lambda value: isinstance(value, str) and value.isascii(),
        gettext_lazy("Must be a JSON string with a UUID."),
    ),
}


@cache
def _json_type(kind: Any) -> tuple[Callable[[Any], bool], str] | None:
    return next((JSON_TYPES[base] for base in kind.__mro__ if base in JSON_TYPES), None)


def type_error(field: AnyField, value: Any) -> list[serializers.ErrorDetail]:
    """Return the error of a field if its value has the wrong JSON type; otherwise an empty list.

    The field itself decides whether it accepts null.
    """
    kind: Any = type(field)  # mypy does not accept a class as hashable
    expected = _json_type(kind)
    if expected is None or value is None or expected[0](value):
        return []
    return [serializers.ErrorDetail(expected[1], code="invalid")]


class ListField(serializers.ListField):
    """A list field that checks the number and JSON types of its items before it validates them.

    DRF validates the items first. A body of 1 MiB can contain 200,000 items, and each invalid item
    becomes a separate error. `Serializer(many=True)` needs no class like this, because DRF's
    `ListSerializer` checks the length first.
    """

    def __init__(self, *, max_length: int, **kwargs: Any) -> None:
        super().__init__(max_length=max_length, **kwargs)
        self.max_items = max_length

    def to_internal_value(self, data: Any) -> list[Any]:
        """Return the validated items."""
        if isinstance(data, list):
            if len(data) > self.max_items:
                self.fail("max_length", max_length=self.max_items)
            wrong: dict[Any, Any] = {
                index: error
                for index, item in enumerate(data)
                if (error := type_error(self.child, item))
            }
            if wrong:
                raise serializers.ValidationError(wrong)
        return super().to_internal_value(data)


class StrictMixin(serializers.Serializer[Any]):
    """Refuses unknown fields, and values with the wrong JSON type.

    Otherwise, a misspelt field would be ignored silently. Read-only fields are ignored, so that a
    client can send back a representation that it has read. The values of query parameters are
    always texts, so their type is not checked.
    """

    # Names that are ignored in a body or a query, and not refused as unknown, for example those of
    # the fields of a representation. If a name is also a field of this serializer, it is not
    # ignored.
    ignored: ClassVar[frozenset[str]] = frozenset()
    # Names of the resources that `expand` adds to the representation; see `bookit.api.expand`. A
    # body may contain the added objects, or null; they are ignored. Any other value is refused,
    # because `service` may be a misspelt `service_id`.
    expanded: ClassVar[Collection[str]] = frozenset()

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values.

        Raises:
            ValidationError: names every field that is missing or invalid, and at most
                `MAX_UNKNOWN_FIELDS` unknown fields.
        """
        refused = _refusal([*islice(self._unknown(data), MAX_UNKNOWN_FIELDS)])
        if isinstance(data, Mapping) and not isinstance(data, QueryDict):
            refused |= self._mistyped(data)
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if not refused or not isinstance(error.detail, dict):
                raise
            raise serializers.ValidationError({**error.detail, **refused}) from None
        if refused:
            raise serializers.ValidationError(refused)
        return values

    def _mistyped(self, data: Mapping[str, Any]) -> dict[str, list[serializers.ErrorDetail]]:
        """Return the errors of the fields whose values have the wrong JSON type."""
        return {
            name: error
            for name, field in self.fields.items()
            if name in data and not field.read_only and (error := type_error(field, data[name]))
        }

    def _unknown(self, data: Any) -> Iterator[str]:
        """Yield the names of the unknown fields of a body or a query, in its order."""
        if isinstance(data, Mapping):
            fields = self.fields
            yield from (
                str(name)
                for name in data
                if name not in fields and name not in self.ignored
                if name not in self.expanded or not isinstance(data[name], Mapping | None)
            )


def _refusal(names: list[str]) -> dict[str, list[serializers.ErrorDetail]]:
    return {
        name[:100]: [serializers.ErrorDetail(_("There is no such field."), code="unknown")]
        for name in names
    }


class StrictSerializer(StrictMixin):
    """The shape of query parameters, a body or a part of a body, without a model."""


class FlagField(serializers.BooleanField):
    """A boolean query parameter, whose value must be `true` or `false`.

    DRF also accepts other spellings, for example `1`, `on` and `tRUE`. A permission that depends on
    the parameter would have to know all spellings.
    """

    # If the request lacks the parameter, the field has its default. DRF would treat the query as an
    # HTML form, in which a missing boolean is false.
    default_empty_html = empty

    def to_internal_value(self, data: Any) -> bool:
        """Return the boolean."""
        if data not in ("true", "false"):
            self.fail("invalid", input=data)
        return bool(data == "true")


class DecimalField(serializers.DecimalField):
    """A field for a decimal in ASCII digits; see `is_plain`."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the decimal."""
        if not is_plain(str(data)):
            self.fail("invalid")
        return super().to_internal_value(data)


class RowSerializer(StrictMixin, serializers.ModelSerializer[Any]):
    """The serializer of a resource. Its fields define the accepted bodies and the OpenAPI schema.

    The representation does not use the serializer fields: `represent` receives the columns in
    `Meta.fields` directly from the database.
    """

    serializer_field_mapping = {
        **serializers.ModelSerializer.serializer_field_mapping,
        DecimalColumn: DecimalField,
    }
    # Annotations for fields that are not columns of the model.
    annotations: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse fields whose values the representation would not contain.

        Raises:
            TypeError: a field has a `source`, which `rows` would ignore.
        """
        super().__init_subclass__(**options)
        for name, field in cls._declared_fields.items():
            if field.source is not None:
                raise TypeError(
                    f"{cls.__name__}.{name} would not be computed: rows go to the client without"
                    " serializer fields. Add it to `annotations`, or to the result of `represent`."
                )

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the queryset's rows as dictionaries of the shown columns."""
        return queryset.annotate(**cls.annotations).values(*cls.Meta.fields)

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return the representation of a row that `rows` selected."""
        return row

    @classmethod
    def represent_instance(cls, instance: Model) -> dict[str, Any]:
        """Return the representation of an instance."""
        return cls.represent({name: getattr(instance, name) for name in cls.Meta.fields})

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return the representation of a row or an instance."""
        if isinstance(instance, dict):
            return self.represent(instance)
        return self.represent_instance(instance)

    class Meta:
        fields: ClassVar[list[str]] = []
