"""API keys in the admin site."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from accounts.keys import services as keys
from accounts.keys.models import ApiKey
from bookit.adminsite.cards import Card, CardsAdmin
from bookit.adminsite.cells import badge, code, exactly, link, moment
from bookit.adminsite.links import page_for
from bookit.adminsite.pages import ServedAdmin


@admin.register(ApiKey)
class ApiKeyAdmin(CardsAdmin, ServedAdmin):
    """The API keys of all users. Admins can view and revoke them."""

    list_title = _("API keys")
    list_display = ["named", "state", "owner", "may", "used", "created"]
    list_display_links = ["named"]
    list_filter = ["created_at", "last_used_at", "expires_at"]
    list_select_related = ["user"]
    search_fields = ["id", "prefix", "name", "user__email"]
    exclude = ["digest"]
    ordering = ["-id"]
    delete_words = _("Revoke")
    delete_note = _("From then on, programs that use this key are refused.")

    @admin.display(description=_("Key"))
    def named(self, key: ApiKey) -> Any:
        """Return the name of the key, and how it begins."""
        return format_html('{}<span class="quiet">{}…</span>', key.name, key.prefix)

    @admin.display(description=_("State"))
    def state(self, key: ApiKey) -> Any:
        """Return whether the key works."""
        if not key.user.is_active:
            return badge("off", _("owner is inactive"))
        if key.expires_at and key.expires_at <= timezone.now():
            return badge("expired", _("expired"))
        return badge("active", _("active"))

    @admin.display(description=_("Owner"))
    def owner(self, key: ApiKey) -> str:
        """Return the email address of the owner."""
        return key.user.email

    @admin.display(description=pgettext_lazy("permissions", "May"))
    def may(self, key: ApiKey) -> Any:
        """Return what the key can be used for."""
        if key.permissions is None:
            return _(
                "whatever its owner may do, except manage their account, feed URLs, users and roles"
            )
        return ", ".join(key.permissions) or _("nothing")

    @admin.display(description=_("Last used"))
    def used(self, key: ApiKey) -> Any:
        """Return when the key was last used."""
        return moment(key.last_used_at) or _("never")

    @admin.display(description=_("Created"))
    def created(self, key: ApiKey) -> Any:
        """Return when the key was created."""
        return moment(key.created_at)

    def cards(self, request: HttpRequest, row: ApiKey) -> Sequence[Card]:
        """Return a card with the key's state, owner, permissions and times."""
        zone = request.user.timezone  # type: ignore[union-attr]
        facts = [
            (_("State"), self.state(row)),
            (_("Begins with"), code(row.prefix)),
            (_("Owner"), link(page_for(request, row.user), row.user.email)),
            (pgettext_lazy("permissions", "May"), self.may(row)),
            (_("Created"), exactly(row.created_at, zone)),
            (_("Last used"), exactly(row.last_used_at, zone) or _("never")),
            (_("Expires"), exactly(row.expires_at, zone) or _("never")),
            (_("Id"), code(row.pk)),
        ]
        return [Card(_("API key"), facts=facts)]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: nobody can change a key."""
        return False

    def delete_row(self, request: HttpRequest, row: ApiKey) -> None:
        """Delete a key, which stops working at once."""
        keys.delete_key(key_id=row.pk, owner=row.user)
