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
