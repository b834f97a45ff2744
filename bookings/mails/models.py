"""The operator's own texts of emails."""

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

# The names of the kinds of emails.
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
    "queue-cancelled": _("Queue cancelled"),
    "queue-ended": _("Queue ended"),
}


class MailText(models.Model):
    """The operator's own words for one kind of email. BookIt's words replace an empty field.

    Only kinds with at least one text of their own have a row.
    """

    kind = models.CharField(primary_key=True, max_length=30, editable=False)
    label = models.CharField(_("beginning of the subject"), max_length=60, blank=True)
    attendee = models.TextField(_("text for the customer"), max_length=2000, blank=True)
    provider = models.TextField(_("text for the provider"), max_length=2000, blank=True)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["kind"]
        verbose_name = _("mail text")
        verbose_name_plural = _("mail texts")

    def __str__(self) -> str:
        return str(NAMES.get(self.kind, self.kind))
