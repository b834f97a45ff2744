"""The base classes of the pages of models."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import get_fields_from_path
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest

# What the links of Django's own filters add to the name of a field, and those of a date hierarchy.
FILTER_LOOKUPS = ["", "exact", "isnull", "gte", "lt"]
DATE_LOOKUPS = ["year", "month", "day"]


class StrictAdmin(admin.ModelAdmin):
    """Pages whose lists can be filtered only by the filters that they show.

    Django lets an address filter by any field of the model, hidden or not. How many rows
    `?secret__startswith=a` finds then reveals a secret letter by letter.
    """

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Return whether a parameter belongs to one of the list's own filters."""
        return lookup in self._filter_parameters(request)

    def _filter_parameters(self, request: Any) -> set[str]:
        names = set()
        for item in self.get_list_filter(request):
            path = str(item[0] if isinstance(item, tuple) else item)
            field: Any = get_fields_from_path(self.model, path)[-1]
            if field.is_relation:
                path = LOOKUP_SEP.join([path, field.target_field.name])
            names |= {LOOKUP_SEP.join([path, each]) if each else path for each in FILTER_LOOKUPS}
        if self.date_hierarchy:
            names |= {LOOKUP_SEP.join([self.date_hierarchy, each]) for each in DATE_LOOKUPS}
        return names


class ReadOnlyAdmin(StrictAdmin):
    """Rows that services write and people only look at."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False


class StampedAdmin(StrictAdmin):
    """Rows with an id and a time of making, which a page for a new one has no use for."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields, without those that only a stored row has."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None:
            return fieldsets
        unknown = {"id", "created_at"}
        return [
            (
                name,
                {**options, "fields": [each for each in options["fields"] if each not in unknown]},
            )
            for name, options in fieldsets
        ]
