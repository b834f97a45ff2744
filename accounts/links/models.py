"""The single-use tokens in emails about accounts."""

from django.conf import settings
from django.db import models


class EmailedLink(models.Model):
    """A token that was sent to an email address. Using the token proves access to that address.

    Using a token deletes its row. A trigger (`user_links_end`) deletes all rows of an account when
    the account's password or email address changes, and when the account is deactivated.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="emailed_links"
    )
    purpose = models.CharField(max_length=20, help_text="The name of a kind of email.")
    email = models.EmailField(help_text="The address to which the token was sent.")
    # SHA-256 without a salt is enough, because a token has 256 random bits.
    token_hash = models.BinaryField(max_length=32)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="emailed_link_by_expiry")]
        constraints = [
            models.UniqueConstraint(fields=["token_hash"], name="emailed_link_token"),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} of {self.user_id}"
