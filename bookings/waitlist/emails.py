"""Tells users that their wait has ended: the slot was cancelled, or no seat became free in time."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from bookings.mails import texts as mail_texts
from bookings.mails.queue import Place, compose_end, send_end
from bookings.models import Slot
from bookings.waitlist.models import WaitlistEntry
from bookit.mails.sending import Job, defer

TASK = "bookings.send_queue_mail"


def enqueue(*, entry_ids: Collection[UUID]) -> None:
    """Enqueue a job for each entry, in the transaction that ends the wait."""
    defer(TASK, {f"{TASK}/{pk}": ({"entry_id": str(pk)}, None) for pk in entry_ids})


def enqueue_composed(*, slot: Slot) -> None:
    """Compose the emails to the users who wait for a slot that will be deleted; enqueue their jobs.

    For these users, the session has been cancelled.
    """
    waiting = _reached(WaitlistEntry.Status.WAITING)
    texts, task = mail_texts.in_use(), "bookings.send_composed_mail"
    jobs: dict[str, Job] = {}
    for entry in waiting.filter(calendar=slot.calendar_id, slot=slot).order_by("pk"):
        mail = compose_end(_place(entry, is_cancelled=True), texts)
        args = {"mail": asdict(mail), "user_id": str(entry.user_id)}
        jobs[f"{task}/{entry.pk}"] = (args, None)
    defer(task, jobs)


def send(*, entry_id: UUID, at: datetime) -> None:
    """Tell a user that they no longer wait for a seat.

    Do nothing if the user is inactive, the entry was deleted, or its status is no longer `passed`.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    entry = _reached(WaitlistEntry.Status.PASSED).filter(pk=entry_id).first()
    if entry is None:
        return
    is_cancelled = entry.slot.status == Slot.Status.CANCELLED
    send_end(place=_place(entry, is_cancelled=is_cancelled), at=at)


def _reached(status: str) -> QuerySet[WaitlistEntry]:
    """Return the entries with a status, except those of inactive users."""
    entries = WaitlistEntry.objects.select_related("user", "slot__service", "slot__calendar")
    return entries.filter(status=status, user__is_active=True)


def _place(entry: WaitlistEntry, *, is_cancelled: bool) -> Place:
    return Place(
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
        is_cancelled=is_cancelled,
    )
