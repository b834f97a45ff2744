"""What every serializer shares: strict bodies in, plain dictionaries out."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db.models import DecimalField as DecimalColumn
from django.db.models import Model, QuerySet
from rest_framework import serializers

# So many unknown fields are named: a body of a mebibyte has room for a hundred thousand.
MOST_UNKNOWN = 20


class StrictMixin(serializers.Serializer[Any]):
    """Refuses fields that do not exist, for a misspelt one would be ignored in silence.

    Read-only fields are ignored, so that a client may send back what it has read.
    """

    # Fields that the representation has and this body has not.
    ignored: ClassVar[frozenset[str]] = frozenset()

    def to_internal_value(self, data: Any) -> Any:
        """Return the checked values.

        Raises:
            ValidationError: with every field that is missing, wrong or unknown.
        """
        unknown = (
            sorted(map(str, data.keys() - self.fields.keys() - self.ignored))
            if isinstance(data, Mapping)
            else []
        )
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if not unknown or not isinstance(error.detail, dict):
                raise
            raise serializers.ValidationError({**error.detail, **_unknown(unknown)}) from None
        if unknown:
            raise serializers.ValidationError(_unknown(unknown))
        return values


def _unknown(names: list[str]) -> dict[str, list[serializers.ErrorDetail]]:
    return {
        name[:100]: [serializers.ErrorDetail("There is no such field.", code="unknown")]
        for name in names[:MOST_UNKNOWN]
    }


class InputSerializer(StrictMixin):
    """The body of a request that is not itself a resource."""


class DecimalField(serializers.DecimalField):
    """A decimal in ASCII digits; Python would read those of any script."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the decimal."""
        if not str(data).isascii():
            self.fail("invalid")
        return super().to_internal_value(data)


class RowSerializer(StrictMixin, serializers.ModelSerializer[Any]):
    """A resource: its fields say what bodies may hold and what the schema shows.

    Its representation does not go through them: it is made of `Meta.fields`, straight from the
    database, by `represent`.
    """

    serializer_field_mapping = {
        **serializers.ModelSerializer.serializer_field_mapping,
        DecimalColumn: DecimalField,
    }
    # Annotations for fields that are no columns of their own.
    annotations: ClassVar[dict[str, Any]] = {}

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the queryset's rows as dictionaries of the columns that are shown."""
        return queryset.annotate(**cls.annotations).values(*cls.Meta.fields)

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return what the client sees of a row of `rows`."""
        return row

    @classmethod
    def represent_instance(cls, instance: Model) -> dict[str, Any]:
        """Return what the client sees of an instance."""
        return cls.represent({name: getattr(instance, name) for name in cls.Meta.fields})

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return what the client sees of a row or an instance."""
        if isinstance(instance, dict):
            return self.represent(instance)
        return self.represent_instance(instance)

    class Meta:
        fields: ClassVar[list[str]] = []
