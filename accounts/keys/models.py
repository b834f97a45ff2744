"""The table of API keys."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from uuid_utils.compat import uuid7


class ApiKey(models.Model):
    """A key with which a program acts for a user. The key itself is not stored."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys"
    )
    name = models.CharField(max_length=100)
    prefix = models.CharField(
        max_length=11, help_text="The first characters of the key, by which people recognise it."
    )
    # SHA-256 of the random bytes. A slow hash, as used for passwords, would add no protection: a
    # password can be guessed, but nobody can try the 2^208 secrets with the stored prefix,
    # however fast the hash is. A slow hash would only slow down every request.
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    permissions = ArrayField(
        models.CharField(max_length=100),
        null=True,
        blank=True,
        help_text=(
            "What the key can be used for. Null: whatever its owner may do, except manage their "
            "account, feed URLs, users and roles. An empty list: nothing."
        ),
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ["created_at", "id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
