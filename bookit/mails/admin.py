"""The counts of emails in the admin site."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from bookit.adminsite.pages import ReadOnlyAdmin
from bookit.mails.models import MailCount


@admin.register(MailCount)
class MailCountAdmin(ReadOnlyAdmin):
    """How many emails counted towards a limit, and how many were withheld because of it."""

    list_title = _("Email limits")
    list_display = ["day", "subject", "sent", "most", "withheld"]
    list_filter = ["day"]
    search_fields = ["subject"]
