"""The card about today's slots on the home page of the admin site."""

from typing import Any

from bookings.models import Booking, Slot
from bookings.seats import seats_taken
from bookings.slots.services import WAITING
from bookings.waitlist.models import WaitlistEntry
from bookit.adminsite import words
from bookit.adminsite.extensions import HOME_CARDS, Glance, HomeCard
from bookit.adminsite.links import list_of, page_of
from bookit.times import zone

MAX_SLOTS = 8
# The statuses of bookings that take a seat, as a value of `status__in` in a link to the list.
TAKING = ",".join(Booking.ACTIVE)


def read_slots(glance: Glance) -> dict[str, Any] | None:
    """Return today's slots that are not over, with their free seats; None if there are none."""
    begin, end = glance.days(glance.today, glance.today)
    slots: list[Any] = [
        *Slot.objects.filter(
            status=Slot.Status.SCHEDULED,
            start_time__gte=begin,
            start_time__lt=end,
            end_time__gt=glance.at,
        )
        .annotate(taken=seats_taken(glance.at), waiting=WAITING)
        .select_related("service", "calendar")
        .order_by("start_time", "id")[: MAX_SLOTS + 1]
    ]
    if not slots:
        return None
    return {
        "lines": [_line(slot, glance) for slot in slots[:MAX_SLOTS]],
        "more": len(slots) > MAX_SLOTS,
        "url": list_of(
            Slot, start_time__gte=begin, start_time__lt=end, status__exact=Slot.Status.SCHEDULED
        ),
        "sees_bookings": glance.user.has_perm("bookings.view_booking"),
        "sees_waitlist": glance.user.has_perm("bookings.view_waitlistentry"),
    }


def _line(slot: Any, glance: Glance) -> dict[str, Any]:
    local = zone(slot.calendar.timezone)
    return {
        "hours": words.hours(slot.start_time, slot.end_time, local),
        "zone": words.foreign_zone(slot.start_time, local, glance.zone),
        "is_now": slot.start_time <= glance.at,
        "title": slot.service.title,
        "calendar": slot.calendar.name,
        "capacity": slot.capacity,
        "taken": slot.taken,
        "waiting": slot.waiting,
        # Free seats are promised to the waiting users first.
        "free": max(slot.capacity - slot.taken - slot.waiting, 0),
        "width": round(min(slot.taken / slot.capacity, 1) * 100, 1),
        "url": page_of(slot),
        # Without `start_time__isnull`, the list shows only today and later (`UpcomingFilter`).
        # After midnight, the link on a page that is still open would lead to an empty list.
        "bookings": list_of(
            Booking, slot__id__exact=slot.pk, status__in=TAKING, start_time__isnull=False
        ),
        "waitlist": list_of(
            WaitlistEntry, slot__id__exact=slot.pk, status__exact=WaitlistEntry.Status.WAITING
        ),
    }


HOME_CARDS.add("slots")(
    HomeCard(40, "admin/home/slots.html", read_slots, "bookings.view_slot", wide=True)
)
