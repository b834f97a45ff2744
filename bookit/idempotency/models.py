"""Responses that are kept for requests that clients send again."""

from django.conf import settings
from django.db import models


class KeptResponse(models.Model):
    """The response that is kept for an idempotency key of an owner."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False
    )
    # The id of the API key that authenticated the request, or of the user if there was no API key.
    # Each owner has its own idempotency keys.
    owner = models.UUIDField()
    key = models.CharField(max_length=255)
    # SHA-256 of the method, path, parameters and JSON of the request.
    fingerprint = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField()
    location = models.TextField(blank=True)
    # The body as it was sent: JSON in UTF-8, or empty.
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
