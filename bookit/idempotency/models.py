"""Responses that are kept for requests which are sent again."""

from django.conf import settings
from django.db import models


class KeptResponse(models.Model):
    """The response to the first request with an idempotency key of a user or an API key."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False
    )
    # The API key that authenticated the request; otherwise the user. Each has its own keys.
    owner = models.UUIDField()
    key = models.CharField(max_length=255)
    # SHA-256 of what was requested.
    fingerprint = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField()
    location = models.TextField(blank=True)
    # As it was sent: JSON in UTF-8.
    body = models.BinaryField()
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "bookit_keptresponse"
        constraints = [
            models.UniqueConstraint(fields=["owner", "key"], name="idempotency_key_used_once"),
        ]

    def __str__(self) -> str:
        """Return the owner and the key."""
        return f"{self.owner}: {self.key}"
