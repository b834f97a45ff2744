"""The operator's own texts of emails."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

# The names of the kinds of emails. Two kinds still call a waitlist a queue, because the kinds are
# part of stored keys.
NAMES = {
    "requested": _("Requested"),
    "booked": _("Booked"),
    "confirmed": _("Confirmed"),
    "moved": _("Moved"),
    "cancelled": _("Cancelled"),
    "not-confirmed": _("Not confirmed"),
    "reminder": _("Reminder"),
    "seat-offered": _("Seat offered"),
    "seat-passed-on": _("Seat passed on"),
    "seat-withdrawn": _("Seat withdrawn"),
    "queue-cancelled": _("Waitlist cancelled"),
    "queue-ended": _("Waitlist ended"),
}


class MailText(models.Model):
    """The operator's own words for one kind of email, in one language or for every language.

    If a field in the reader's language is empty, the field for every language is sent; if that is
    empty too, BookIt's own words are sent. Only texts that an operator has saved have a row.
    """

    # The kind of email, a dot and the language, for example `reminder.de`. The key of a text for
    # every language is only the kind.
    key = models.CharField(
        _("kind"), db_column="kind", primary_key=True, max_length=30, editable=False
    )
    label = models.CharField(_("beginning of the subject"), max_length=60, blank=True)
    attendee = models.TextField(_("text for the customer"), max_length=2000, blank=True)
    provider = models.TextField(_("text for the provider"), max_length=2000, blank=True)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["key"]
        verbose_name = _("email text")
        verbose_name_plural = _("email texts")

    def __str__(self) -> str:
        name = str(NAMES.get(self.kind, self.kind))
        language = dict(settings.LANGUAGES).get(self.language, self.language)
        return f"{name} ({language})" if language else name

    @property
    def kind(self) -> str:
        """The kind of email."""
        return self.key.partition(".")[0]

    @property
    def language(self) -> str:
        """The language of the readers; empty if the text is for every language."""
        return self.key.partition(".")[2]

    @property
    def has_words(self) -> bool:
        """Whether any field contains words of the operator."""
        return bool(self.label or self.attendee or self.provider)
