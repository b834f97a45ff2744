"""The table of sessions."""

from django.conf import settings
from django.db import models
from django.db.models.lookups import PostgresOperatorLookup
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7


@models.GenericIPAddressField.register_lookup
class Within(PostgresOperatorLookup):
    """The lookup `within`: whether an IP address is in a network, or equals an IP address."""

    lookup_name = "within"
    postgres_operator = "<<="
    prepare_rhs = False


class Session(models.Model):
    """One login, and the chain of refresh tokens that starts with it. They end together.

    A login to the admin site has no refresh tokens.

    A trigger (`user_sessions_end`) ends all sessions of an account when the account is deactivated,
    when its role changes and when its password hash changes, even if the password stays the same.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sessions"
    )
    created_at = models.DateTimeField()
    last_used_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    address = models.GenericIPAddressField(null=True, blank=True)
    client = models.CharField(max_length=300, blank=True, help_text=_("The User-Agent at login."))

    class Meta:
        ordering = ["-last_used_at", "-id"]
        indexes = [models.Index(fields=["expires_at"], name="session_by_expiry")]

    def __str__(self) -> str:
        return f"{self.user_id}, {self.created_at:%Y-%m-%d %H:%M} UTC"
