"""Tells users that their wait has ended: the slot is gone, or no seat became free in time."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from procrastinate.contrib.django.models import ProcrastinateJob

from bookings.mails import texts as mail_texts
from bookings.mails.services import COMPOSED
from bookings.mails.waitlist import Place, compose_end, send_end
from bookings.models import Slot
from bookings.waitlist.models import WaitlistEntry
from bookit.database.citus.lookups import by_id
from bookit.mails.sending import Job, defer

TASK = "bookings.send_queue_mail"


def enqueue(*, entry_ids: Collection[UUID]) -> None:
    """Enqueue a job for each entry, in the transaction that ends the wait."""
    defer(TASK, {f"{TASK}/{pk}": ({"entry_id": str(pk)}, None) for pk in entry_ids})


def enqueue_composed(*, slot: Slot, is_cancelled: bool) -> None:
    """Compose the emails about the waitlist of a slot that will be deleted, and enqueue their jobs.

    Active users who are waiting get an email. So do those whose wait has ended, if their email has
    not been sent yet.
    """
    found = WaitlistEntry.objects.filter(
        calendar=slot.calendar_id,
        slot=slot,
        status__in=[WaitlistEntry.Status.WAITING, WaitlistEntry.Status.PASSED],
        user__is_active=True,
    )
    entries = [*found.select_related("user", "slot__service", "slot__calendar")]
    if not entries:
        return
    unsent: set[str] = set()
    if any(entry.status == WaitlistEntry.Status.PASSED for entry in entries):
        unfinished = ProcrastinateJob.objects.filter(task_name=TASK, status__in=["todo", "doing"])
        unsent = {*unfinished.values_list("args__entry_id", flat=True)}
    texts = mail_texts.in_use()
    jobs: dict[str, Job] = {}
    for entry in entries:
        if entry.status == WaitlistEntry.Status.WAITING or str(entry.pk) in unsent:
            mail = compose_end(_place(entry, is_cancelled=is_cancelled), texts)
            args = {"mail": asdict(mail), "user_id": str(entry.user_id)}
            jobs[f"{COMPOSED}/{entry.pk}"] = (args, None)
    defer(COMPOSED, jobs)


def send(*, entry_id: UUID, at: datetime) -> None:
    """Tell a user that they no longer wait for a seat.

    Do nothing if the user is inactive, the entry was deleted, or its status is no longer `passed`.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    entries = WaitlistEntry.objects.select_related("user", "slot__service", "slot__calendar")
    try:
        entry = by_id(entries, entry_id).get(
            status=WaitlistEntry.Status.PASSED, user__is_active=True
        )
    except WaitlistEntry.DoesNotExist:
        return
    is_cancelled = entry.slot.status == Slot.Status.CANCELLED
    send_end(place=_place(entry, is_cancelled=is_cancelled), at=at)


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
