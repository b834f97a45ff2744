"""Sessions and their tokens in the admin site."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import get_fields_from_path
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext_lazy
from django.utils.translation import gettext_lazy as _
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from accounts.models import User
from accounts.sessions import services as sessions
from accounts.sessions.clients import browser_of
from accounts.sessions.models import Session
from bookit.adminsite.cards import Card, CardsAdmin
from bookit.adminsite.cells import badge, code, exactly, link, moment
from bookit.adminsite.links import page_for
from bookit.adminsite.pages import ReadOnlyAdmin
from bookit.adminsite.search import all_in


class OwnedAdmin(ReadOnlyAdmin):
    """The read-only pages of a long table whose rows belong to users.

    `search_fields` has two fields. A search finds a row by a part of the first field, the email
    address of its user, or by the whole value of the second field.
    """

    def search_conditions(self, request: HttpRequest, words: str) -> list[Q]:
        """Return a condition on each of the two `search_fields`.

        The second condition is left out if the words cannot be a value of the second field.
        """
        email, own = self.search_fields
        users = User.objects.filter(all_in(words, ["email"])).values("pk")
        found = [Q((f"{email.removesuffix('__email')}__in", users))]
        field: Any = get_fields_from_path(self.model, own)[-1]
        try:
            field.run_validators(words)
        except ValidationError:
            return found
        return [*found, Q((own, words))]


@admin.register(Session)
class SessionAdmin(CardsAdmin, OwnedAdmin):
    """Where users have signed in. Admins can end sessions."""

    list_display = ["who", "state", "started", "used", "device"]
    list_display_links = ["who"]
    list_filter = ["revoked_at", "created_at"]
    list_select_related = ["user"]
    search_fields = ["user__email", "address"]
    ordering = ["-id"]
    actions = ["end"]
    buttons = ["end"]

    @admin.display(description=_("User"))
    def who(self, session: Session) -> str:
        """Return the email address of the user."""
        return session.user.email

    @admin.display(description=_("State"))
    def state(self, session: Session) -> Any:
        """Return whether the session still works."""
        if session.revoked_at:
            return badge("ended", _("ended"))
        if session.expires_at <= timezone.now():
            return badge("expired", _("expired"))
        return badge("active", _("active"))

    @admin.display(description=_("Signed in"))
    def started(self, session: Session) -> Any:
        """Return when the user signed in."""
        return moment(session.created_at)

    @admin.display(description=_("Last used"))
    def used(self, session: Session) -> Any:
        """Return when the user signed in or last got new tokens."""
        return moment(session.last_used_at)

    @admin.display(description=_("Where"), empty_value="")
    def device(self, session: Session) -> Any:
        """Return the browser or the program, and the IP address."""
        return format_html(
            '{}<span class="quiet below">{}</span>',
            browser_of(session.client) or session.client,
            session.address or "",
        )

    def heading(self, row: Session) -> Any:
        """Return whose session it is."""
        return _("Session of %(user)s") % {"user": row.user.email}

    def offers(self, row: Session, action: str) -> bool:
        """Return whether the session still works."""
        return not row.revoked_at and row.expires_at > timezone.now()

    def cards(self, request: HttpRequest, row: Session) -> Sequence[Card]:
        """Return where and when the user signed in."""
        zone = request.user.timezone  # type: ignore[union-attr]
        facts = [
            (_("State"), self.state(row)),
            (_("User"), link(page_for(request, row.user), row.user.email)),
            (_("Signed in"), exactly(row.created_at, zone)),
            (_("Last used"), exactly(row.last_used_at, zone)),
            (_("Ended"), exactly(row.revoked_at, zone)),
            (_("Expires"), "" if row.revoked_at else exactly(row.expires_at, zone)),
            (_("Address"), row.address),
            (_("Browser or program"), browser_of(row.client) or row.client),
            (_("User-Agent"), code(row.client) if browser_of(row.client) else ""),
        ]
        return [Card(_("Session"), facts=facts)]

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Return whether the user is an admin. Only admins may end sessions of others."""
        return request.user.is_superuser

    @admin.action(description=_("End session"), permissions=["end"])
    def end(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        """End the selected sessions."""

        def end(session: Session) -> None:
            sessions.end_any_session(
                session_id=session.pk,
                actor=request.user,  # type: ignore[arg-type]
                at=timezone.now(),
            )
            self.log_change(request, session, gettext("Ended"))

        done = ngettext_lazy("%d session ended.", "%d sessions ended.")
        self.apply(request, queryset, end, done=done)


# simplejwt's own page of used tokens is editable, but only the services may change tokens.
admin.site.unregister([BlacklistedToken, OutstandingToken])


@admin.register(OutstandingToken)
class OutstandingTokenAdmin(OwnedAdmin):
    """The read-only pages of issued refresh tokens. The tokens themselves are not stored."""

    menu = None
    list_display = ["jti", "user", "created_at", "expires_at"]
    list_filter = ["expires_at"]
    list_select_related = ["user"]
    search_fields = ["user__email", "jti"]
    fields = ["jti", "user", "created_at", "expires_at"]
    ordering = ["-id"]


@admin.register(BlacklistedToken)
class BlacklistedTokenAdmin(OwnedAdmin):
    """The read-only pages of refresh tokens that were used or revoked."""

    menu = None
    list_display = ["token_key", "user", "blacklisted_at"]
    list_filter = ["blacklisted_at"]
    list_select_related = ["token__user"]
    search_fields = ["token__user__email", "token__jti"]
    fields = ["user", "blacklisted_at"]
    ordering = ["-id"]

    @admin.display(description=_("Token"), ordering="token_id")
    def token_key(self, row: BlacklistedToken) -> int:
        """Return the number of the token, which is not the token itself."""
        return row.token_id

    @admin.display(description=_("User"), ordering="token__user__email")
    def user(self, row: BlacklistedToken) -> Any:
        """Return the user to whom the token was issued."""
        return row.token.user
