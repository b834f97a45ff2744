"""Describes jobs in the admin site: what they do, and the bookings and slots they are about."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from bookings.models import Booking, BookingEvent, Slot
from bookit.adminsite.links import page_of
from bookit.adminsite.words import dated
from bookit.jobs.extensions import JOB_SUBJECTS, TASK_WORDS, Arguments, Subject, uuid_in
from bookit.times import zone

for _task, _words in {
    "bookings.follow_up": _("Announce what happened to a booking"),
    "bookings.send_mail": _("Email about a booking"),
    "bookings.send_composed_mail": _(
        "Email after the deletion of a booking, slot or account, or to a former attendee"
    ),
    "bookings.offer_seats": _("Offer a free seat to the waitlist"),
    "bookings.offer": _("Offer all free seats to waitlists"),
    "bookings.complete": _("Complete bookings that have ended"),
    "bookings.expire": _("Expire unconfirmed bookings and holds"),
    "bookings.remind": _("Send reminders of bookings that start soon"),
    "bookings.count_events": _("Count bookings for the metrics"),
}.items():
    TASK_WORDS.add(_task)(_words)

DELETED = Subject(_("a booking that was deleted"))
DELETED_SLOT = Subject(_("a slot that was deleted"))


def booking_subjects(ids: Collection[UUID]) -> Mapping[UUID, Subject]:
    """Return each booking (service, customer, time) and its page, by id. Leave out deleted ones."""
    found = Booking.objects.filter(pk__in=ids).select_related("service", "calendar", "user")
    return {
        booking.pk: Subject(
            ", ".join(
                filter(
                    None,
                    [
                        booking.service.title,
                        # Both names are empty once the user has deleted their account.
                        booking.attendee_name or booking.user.name,
                        _when(booking.start_time, booking.calendar.timezone),
                    ],
                )
            ),
            page_of(booking),
        )
        for booking in found.order_by()
    }


def slot_subjects(ids: Collection[UUID]) -> Mapping[UUID, Subject]:
    """Return each slot (service, time) and its page, by id. Leave out deleted ones."""
    found = Slot.objects.filter(pk__in=ids).select_related("service", "calendar")
    return {
        slot.pk: Subject(
            f"{slot.service.title}, {_when(slot.start_time, slot.calendar.timezone)}",
            page_of(slot),
        )
        for slot in found.order_by()
    }


@JOB_SUBJECTS.add("bookings.send_mail", "bookings.follow_up")
def _of_events(jobs: Sequence[Arguments]) -> Iterable[Subject | None]:
    """Yield the booking of the first event of each job, or `DELETED` if the booking was deleted.

    Yield None if the job names no stored event.
    """
    firsts = [_first_event(args) for args in jobs]
    found = BookingEvent.objects.filter(pk__in=[each for each in firsts if each]).order_by()
    bookings = dict(found.values_list("pk", "booking_id"))
    subjects = booking_subjects({*bookings.values()})
    for first in firsts:
        booking_id = bookings.get(first) if first else None
        yield subjects.get(booking_id, DELETED) if booking_id else None


@JOB_SUBJECTS.add("bookings.send_composed_mail")
def _of_composed(jobs: Sequence[Arguments]) -> Iterable[Subject | None]:
    """Return the booking of each job, or a text if the booking or slot was deleted.

    The booking still exists if only the account of its user was deleted, or if the email is to a
    former attendee. An email about the waitlist of a deleted slot has an empty `booking_id`.
    """
    mails = [args.get("mail") for args in jobs]
    ids = [mail.get("booking_id") if isinstance(mail, dict) else None for mail in mails]
    subjects = booking_subjects({found for each in ids if (found := uuid_in(each))})
    by_text = {str(booking_id): subject for booking_id, subject in subjects.items()}
    return [DELETED_SLOT if each == "" else by_text.get(str(each), DELETED) for each in ids]


@JOB_SUBJECTS.add("bookings.offer_seats")
def _of_slots(jobs: Sequence[Arguments]) -> Iterable[Subject | None]:
    """Return the first slot of each job, or None if the slot was deleted."""
    firsts = [uuid_in(_first(args.get("slot_ids"))) for args in jobs]
    subjects = slot_subjects({first for first in firsts if first})
    return [subjects.get(first) if first else None for first in firsts]


def _first_event(args: Arguments) -> UUID | None:
    return uuid_in(args.get("event_id") or _first(args.get("event_ids")))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _when(time: datetime, name: str) -> str:
    return f"{dated(time.astimezone(zone(name)), 'DAY_FORMAT')} ({name})"
