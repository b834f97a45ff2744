"""API keys in the admin site."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from accounts.keys import services as keys
from accounts.keys.models import ApiKey
from bookit.adminsite.pages import ServedAdmin


@admin.register(ApiKey)
class ApiKeyAdmin(ServedAdmin):
    """The API keys of all users. Admins can view and delete them."""

    list_display = ["name", "prefix", "user", "created_at", "last_used_at", "expires_at"]
    list_filter = ["created_at", "last_used_at", "expires_at"]
    list_select_related = ["user"]
    search_fields = ["id", "prefix", "name", "user__email"]
    exclude = ["digest"]
    ordering = ["-id"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a key never changes."""
        return False

    def delete_row(self, request: HttpRequest, row: ApiKey) -> None:
        """Delete a key, which stops working at once."""
        keys.delete_key(key_id=row.pk, owner=row.user)
