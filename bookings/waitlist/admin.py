"""Waitlists in the admin site."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from bookings.subjects import slot_subjects
from bookings.waitlist import emails
from bookings.waitlist.models import WaitlistEntry
from bookit.adminsite import words
from bookit.adminsite.cards import Card, CardsAdmin
from bookit.adminsite.cells import badge, code, exactly, link, moment, person
from bookit.adminsite.links import page_for
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ReadOnlyAdmin
from bookit.jobs.extensions import JOB_SUBJECTS, TASK_WORDS, Arguments, Subject, uuid_in
from bookit.times import zone

TASK_WORDS.add(emails.TASK)(_("Email about the end of a wait"))


@JOB_SUBJECTS.add(emails.TASK)
def _of_entries(jobs: Sequence[Arguments]) -> Iterable[Subject | None]:
    """Return, for each job, the slot for which its user was waiting."""
    ids = [uuid_in(args.get("entry_id")) for args in jobs]
    found = WaitlistEntry.objects.filter(pk__in=[each for each in ids if each]).order_by()
    slots = dict(found.values_list("pk", "slot_id"))
    subjects = slot_subjects({*slots.values()})
    for entry_id in ids:
        slot_id = slots.get(entry_id) if entry_id else None
        yield subjects.get(slot_id) if slot_id else None


Status = WaitlistEntry.Status
STATES = {
    Status.WAITING: _("waiting"),
    Status.OFFERED: _("has an offer"),
    Status.BOOKED: _("booked"),
    Status.PASSED: _("ended without a booking"),
    Status.LEFT: _("left"),
}


def _name(entry: WaitlistEntry) -> str:
    return entry.user.name or entry.user.mailbox or gettext("a former user")


@admin.register(WaitlistEntry)
class WaitlistEntryAdmin(CardsAdmin, ReadOnlyAdmin):
    """Users who are waiting, or have waited, for a seat of a full slot."""

    menu = Menu.DIARY
    list_title = _("Waitlists")
    list_display = ["who", "state", "what", "since"]
    csv_columns = ["created_at", "status", "slot", "user", "booking"]
    list_filter = ["status", "created_at"]
    link_filters = ["slot__id__exact"]
    list_select_related = ["slot__service", "slot__calendar", "user", "booking"]
    search_fields = ["id", "slot__id", "user__email", "user__name"]
    ordering = ["-id"]

    @admin.display(description=_("who"), ordering="user__name")
    def who(self, entry: WaitlistEntry) -> Any:
        """Return the name and the email address of the user."""
        return person(entry.user)

    @admin.display(description=_("status"), ordering="status")
    def state(self, entry: WaitlistEntry) -> Any:
        """Return whether the user is waiting or has an offer, or how the wait ended."""
        return badge(entry.status, STATES[Status(entry.status)])

    @admin.display(description=_("for"), ordering="slot__start_time")
    def what(self, entry: WaitlistEntry) -> Any:
        """Return the service and the time of the slot, in the zone of its calendar."""
        slot = entry.slot
        when = words.period(slot.start_time, slot.end_time, zone(slot.calendar.timezone))
        return format_html(
            '{} <span class="below">{} ({})</span>',
            slot.service.title,
            when,
            slot.calendar.timezone,
        )

    @admin.display(description=_("since"), ordering="created_at")
    def since(self, entry: WaitlistEntry) -> Any:
        """Return when the user joined the waitlist."""
        return moment(entry.created_at)

    def heading(self, row: WaitlistEntry) -> str:
        """Return who is waiting, and for which service."""
        return f"{_name(row)}, {row.slot.service.title}"

    def cards(self, request: HttpRequest, row: WaitlistEntry) -> Sequence[Card]:
        """Return the card of an entry, with links to the pages that the signed-in user may see."""
        zone_name = row.slot.calendar.timezone
        facts = [
            (_("State"), self.state(row)),
            (_("User"), link(page_for(request, row.user), _name(row))),
            (_("Slot"), link(page_for(request, row.slot), self.what(row))),
            (_("Since"), exactly(row.created_at, zone_name)),
        ]
        if row.booking:
            status = row.booking.get_status_display()
            facts.append((_("Booking"), link(page_for(request, row.booking), status)))
        return [Card(_("Waitlist entry"), facts=[*facts, (_("Id"), code(row.pk))])]
