"""The base classes of all serializers: they validate bodies strictly and return dictionaries."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

from django.db.models import DecimalField as DecimalColumn
from django.db.models import Model, QuerySet
from rest_framework import serializers

# An error names at most this many unknown fields. A body of 1 MiB can contain 100,000.
MAX_UNKNOWN_FIELDS = 20


class ListField(serializers.ListField):
    """A list field that checks its length before it validates any item.

    DRF validates the items first. A body of 1 MiB can contain 200,000 items, and each invalid item
    becomes a separate error. `Serializer(many=True)` needs no class like this, because DRF's
    `ListSerializer` checks the length first.
    """

    def __init__(self, *, max_length: int, **kwargs: Any) -> None:
        super().__init__(max_length=max_length, **kwargs)
        self.max_items = max_length

    def to_internal_value(self, data: Any) -> list[Any]:
        """Return the validated items."""
        if isinstance(data, list) and len(data) > self.max_items:
            self.fail("max_length", max_length=self.max_items)
        return super().to_internal_value(data)


class StrictMixin(serializers.Serializer[Any]):
    """Refuses unknown fields, because a misspelt field would otherwise be ignored silently.

    Read-only fields are ignored, so that a client can send back a representation that it has read.
    """

    # Names of fields that only the representation has. A body may contain them; they are ignored.
    ignored: ClassVar[frozenset[str]] = frozenset()
    # Names of the resources that `expand` adds to the representation; see `bookit.api.expand`. A
    # body may contain the objects. Any other value is refused, because `service` may be a misspelt
    # `service_id`.
    expanded: ClassVar[frozenset[str]] = frozenset()

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values.

        Raises:
            ValidationError: names every field that is missing, invalid or unknown.
        """
        unknown = list(islice(self._unknown(data), MAX_UNKNOWN_FIELDS))
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if not unknown or not isinstance(error.detail, dict):
                raise
            raise serializers.ValidationError({**error.detail, **_refusal(unknown)}) from None
        if unknown:
            raise serializers.ValidationError(_refusal(unknown))
        return values

    def _unknown(self, data: Any) -> Iterator[str]:
        """Yield the names of unknown fields of the body, in the order of the body."""
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
        name[:100]: [serializers.ErrorDetail("There is no such field.", code="unknown")]
        for name in names
    }


class InputSerializer(StrictMixin):
    """The body of a request that is not itself a resource."""


class DecimalField(serializers.DecimalField):
    """A field for a decimal in ASCII digits; Python's `Decimal` accepts digits of any script."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the decimal."""
        if not str(data).isascii():
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
        """Refuse fields whose values the representation cannot show.

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
