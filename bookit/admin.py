"""What admin pages of several apps share."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

admin.site.site_header = "BookIt"
admin.site.site_title = "BookIt"
admin.site.index_title = "Administration"


class ReadOnlyAdmin(admin.ModelAdmin):
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


class StampedAdmin(admin.ModelAdmin):
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
