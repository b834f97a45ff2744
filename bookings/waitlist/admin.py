"""Waitlists in the admin site."""

from collections.abc import Iterable, Sequence

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from bookings.subjects import slot_subjects
from bookings.waitlist import emails
from bookings.waitlist.models import WaitlistEntry
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ReadOnlyAdmin
from bookit.jobs.extensions import JOB_SUBJECTS, TASK_WORDS, Arguments, Subject, uuid_in

TASK_WORDS.add(emails.TASK)(_("Email about the end of a wait"))


@JOB_SUBJECTS.add(emails.TASK)
def _of_entries(jobs: Sequence[Arguments]) -> Iterable[Subject | None]:
    """Return the slot for which the user of each job was waiting."""
    ids = [uuid_in(args.get("entry_id")) for args in jobs]
    found = WaitlistEntry.objects.filter(pk__in={*ids} - {None}).order_by()
    slots = dict(found.values_list("pk", "slot_id"))
    subjects = slot_subjects({*slots.values()})
    for entry_id in ids:
        slot_id = slots.get(entry_id) if entry_id else None
        yield subjects.get(slot_id) if slot_id else None


@admin.register(WaitlistEntry)
class WaitlistEntryAdmin(ReadOnlyAdmin):
    """Users who are waiting, or have waited, for a seat of a full slot."""

    menu = Menu.DIARY
    list_display = ["created_at", "status", "slot", "user", "booking"]
    list_filter = ["status", "created_at"]
    list_select_related = ["slot", "user", "booking"]
    search_fields = ["id", "slot__id", "user__email", "user__name"]
    ordering = ["-id"]
