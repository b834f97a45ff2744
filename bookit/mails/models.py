"""Counts of emails."""

from django.db import models


class MailCount(models.Model):
    """How many emails counted towards a limit on a day.

    `withheld` counts the emails that were not sent because the limit had been reached.
    """

    subject = models.CharField(
        max_length=100,
        help_text=(
            "A booking and its attendees, a booking and its provider, or the hash of an address."
        ),
    )
    day = models.DateField(help_text="The day in UTC.")
    sent = models.PositiveIntegerField(default=0)
    most = models.PositiveIntegerField(help_text="The limit when the last email was counted.")
    withheld = models.PositiveIntegerField(
        default=0, help_text="Emails that were not sent because the limit was reached."
    )

    class Meta:
        db_table = "bookit_mailcount"
        ordering = ["-day", "-withheld", "id"]
        indexes = [models.Index(fields=["day", "id"], name="mail_counts_by_day")]
        constraints = [
            models.UniqueConstraint(fields=["subject", "day"], name="mail_counted_once"),
        ]

    def __str__(self) -> str:
        return f"{self.subject}, {self.day}"
