"""The serializer of categories."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from bookit.api.schema import example
from bookit.api.serializers import RowSerializer
from catalog.categories.models import Category


@example("Barber", {"name": "Barber", "services": 12})
class CategorySerializer(RowSerializer):
    """A category, and the number of its active services."""

    services = serializers.IntegerField(read_only=True, min_value=1)

    class Meta:
        model = Category
        fields = ["name", "services"]
        read_only_fields = fields

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the names, and the totals that `CategoryQuerySet.in_use` has annotated."""
        return queryset.values("name", "total")

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return the representation of a row that `rows` selected."""
        return {"name": row["name"], "services": row["total"]}
