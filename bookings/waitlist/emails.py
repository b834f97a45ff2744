"""Tells users that their wait has ended: the slot was cancelled, or no seat became free in time."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from bookings.mails.queue import Place, send_end
from bookings.models import Slot
from bookings.waitlist.models import WaitlistEntry
from bookit.mails.sending import defer

TASK = "bookings.send_queue_mail"


def enqueue(*, entry_ids: Collection[UUID]) -> None:
    """Enqueue a job for each entry, in the transaction that ends the wait."""
    defer(TASK, {f"{TASK}/{pk}": ({"entry_id": str(pk)}, None) for pk in entry_ids})


def send(*, entry_id: UUID, at: datetime) -> None:
    """Tell a user that they no longer wait for a seat.

    Do nothing if the user is inactive, the entry was deleted, or its status is no longer `passed`.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    entries = WaitlistEntry.objects.select_related("user", "slot__service", "slot__calendar")
    entry = entries.filter(
        pk=entry_id, status=WaitlistEntry.Status.PASSED, user__is_active=True
    ).first()
    if entry is None:
        return
    place = Place(
        entry_id=entry.pk,
        user_name=entry.user.name,
        user_email=entry.user.email,
        user_timezone=entry.user.timezone,
        user_language=entry.user.language,
        user_is_verified=entry.user.email_verified,
        title=entry.slot.service.title,
        calendar_name=entry.slot.calendar.name,
        start_time=entry.slot.start_time,
        end_time=entry.slot.end_time,
        is_cancelled=entry.slot.status == Slot.Status.CANCELLED,
    )
    send_end(place=place, at=at)
