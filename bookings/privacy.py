"""Exports and erases the personal data about a user in bookings, waitlists and webhooks."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from accounts.extensions import ERASERS, EXPORTERS
from accounts.models import User
from bookings import services
from bookings.booked import forget_calendars
from bookings.desk.models import StaffNote
from bookings.events import forget_reasons
from bookings.mails import services as mails
from bookings.models import Booking, BookingEvent
from bookings.serializers import BookingSerializer, HistoryEventSerializer
from bookings.waitlist.models import WaitlistEntry
from bookings.webhooks.models import Attempt, Webhook

# An export reads the data of this many bookings or reviews at a time, and keeps only the ids of all
# of them in memory. Erasing uses batches of the same size for emails, reasons and notes.
BATCH = 1000

# Deletes the jobs that contain emails about the bookings of a user, or about deleted slots for
# which the user waited, except running jobs. Waiting emails to the provider and to attendees other
# than the user are kept and sent, because these people have to know that the booking is cancelled,
# or is no longer theirs. The addresses of these attendees do not count as verified, so their emails
# contain no names.
#
# Parameters: user_id text, email text (the address of the user).
# Columns: none.
DELETE_MAILS = """
DELETE FROM procrastinate_jobs WHERE task_name = 'bookings.send_composed_mail'
  AND args->>'user_id' = %(user_id)s::text AND status <> 'doing'
  AND NOT (status = 'todo' AND (
    args->'mail'->>'audience' = 'provider'
    OR args->'mail'->'is_verified' = 'false' AND lower(args->'mail'->>'to') <> %(email)s::text
  ))
"""

# Deletes the errors of jobs about a user, or about their bookings and waitlist entries, because the
# message of an error can repeat personal data. The jobs about bookings and entries contain only
# ids, except jobs with composed emails (see `DELETE_MAILS`). The user of a deleted booking is not
# known, so the errors of all jobs about deleted bookings are deleted, too.
#
# Parameters: user_id uuid.
# Columns: none.
# Invariant: MATERIALIZED and ARRAY make PostgreSQL read the few jobs with an error first, not all
#   jobs and events. Each part reads either jobs or rows of calendars, because they are on different
#   servers if the database is distributed.
DELETE_ERRORS = """
WITH job AS MATERIALIZED (
    SELECT job.id, job.task_name, job.args
    FROM bookit_jobfailure AS failure JOIN procrastinate_jobs AS job ON job.id = failure.job_id
), named AS MATERIALIZED (
    SELECT job.id AS job_id, CASE
        -- A job that was enqueued by hand can name anything.
        WHEN event_id #>> '{}' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        THEN (event_id #>> '{}')::uuid
    END AS event_id
    FROM job, jsonb_path_query(
        jsonb_build_array(job.args->'event_id', job.args->'event_ids'), '$[*][*]'
    ) AS event_id
    WHERE job.task_name IN ('bookings.send_mail', 'bookings.follow_up')
), found AS MATERIALIZED (
    SELECT event.id FROM bookings_bookingevent AS event
    LEFT JOIN bookings_booking AS booking
        ON booking.calendar_id = event.calendar_id AND booking.id = event.booking_id
    WHERE event.id = ANY(ARRAY(SELECT event_id FROM named))
      AND (booking.id IS NULL OR booking.user_id = %(user_id)s::uuid)
), entry AS MATERIALIZED (
    SELECT id::text FROM bookings_waitlistentry WHERE user_id = %(user_id)s::uuid
)
DELETE FROM bookit_jobfailure AS failure USING job
WHERE job.id = failure.job_id AND (
    job.id IN (SELECT job_id FROM named JOIN found ON found.id = named.event_id)
    OR job.args->>'user_id' = %(user_id)s::uuid::text
    OR job.task_name = 'bookings.send_queue_mail'
        AND job.args->>'entry_id' IN (SELECT id FROM entry)
)
"""


def batches(rows: QuerySet[Any]) -> Iterator[list[UUID]]:
    """Yield the ids of rows in lists of up to `BATCH`.

    All ids are read first, so a booking that is moved during an export is exported exactly once.
    """
    ids = [*rows.values_list("pk", flat=True)]
    for first in range(0, len(ids), BATCH):
        yield ids[first : first + BATCH]


def _batches_of_bookings(user: User) -> Iterator[list[UUID]]:
    return batches(Booking.objects.filter(user=user).order_by("start_time", "id"))


@EXPORTERS.add("bookings")
def _export_bookings(user: User) -> Iterator[list[Any]]:
    for ids in _batches_of_bookings(user):
        bookings = Booking.objects.filter(pk__in=ids).order_by("start_time", "id")
        yield [BookingSerializer.represent(row) for row in BookingSerializer.rows(bookings)]


@EXPORTERS.add("history")
def _export_history(user: User) -> Iterator[list[Any]]:
    columns = ("booking_id", *HistoryEventSerializer.Meta.fields, "booking__cancellation_reason")
    for ids in _batches_of_bookings(user):
        events = BookingEvent.objects.filter(booking__in=ids).order_by("id")
        yield [HistoryEventSerializer.represent(row) for row in events.values(*columns)]


@EXPORTERS.add("waitlist")
def _export_waitlist(user: User) -> list[Any]:
    entries = WaitlistEntry.objects.filter(user=user).order_by("id")
    return [*entries.values("id", "slot_id", "booking_id", "status", "created_at", "updated_at")]


@EXPORTERS.add("staff_notes")
def _export_staff_notes(user: User) -> Iterator[list[Any]]:
    # The author is left out, because the export is about the user, and not about staff.
    for ids in _batches_of_bookings(user):
        notes = StaffNote.objects.filter(booking__in=ids).order_by("id")
        yield [*notes.values("booking_id", "text", "at")]


@EXPORTERS.add("webhooks")
def _export_webhooks(user: User) -> list[Any]:
    webhooks = Webhook.objects.filter(owner=user).order_by("id")
    return [*webhooks.values("id", "url", "events", "is_active", "created_at", "updated_at")]


@ERASERS.add("bookings")
def erase(*, user: User, actor: User, at: datetime) -> None:
    """Cancel the future bookings of a user, and erase the personal data in all of their bookings.

    Attendees other than the user get an email about the cancellation. The user also leaves all
    waitlists.

    A webhook message is composed from the booking when it is sent, and is not stored. The response
    of its receiver is stored and can repeat personal data, so the response is erased. Responses to
    messages about deleted bookings are not kept; see `bookings.webhooks.services.forget_responses`.
    """
    services.cancel_all(user=user, actor=actor, at=at)
    waiting = WaitlistEntry.objects.filter(user=user, status=WaitlistEntry.Status.WAITING)
    for calendar_id in _calendars_of(waiting):
        waiting.filter(calendar=calendar_id).update(status=WaitlistEntry.Status.LEFT, updated_at=at)
    bookings = Booking.objects.filter(user=user)
    for calendar_id in _calendars_of(bookings):
        own = bookings.filter(calendar=calendar_id)
        _erase_bookings(own, calendar_id=calendar_id, user=user, at=at)
    with connection.cursor() as cursor:
        cursor.execute(DELETE_ERRORS, {"user_id": user.pk})
        cursor.execute(DELETE_MAILS, {"user_id": str(user.pk), "email": user.email})
    forget_calendars(user.pk)


def _calendars_of(rows: QuerySet[Any]) -> list[UUID]:
    """Return the calendars of rows, in an order in which two transactions cannot deadlock."""
    return [*rows.order_by("calendar").values_list("calendar", flat=True).distinct()]


def _erase_bookings(
    bookings: QuerySet[Booking], *, calendar_id: UUID, user: User, at: datetime
) -> None:
    """Erase the personal data in the bookings of a user on one calendar."""
    cancelled = bookings.filter(status=Booking.Status.CANCELLED, start_time__gt=at)
    for ids in batches(cancelled.exclude(attendee_email="").order_by("id")):
        mails.enqueue_cancellations(calendar_id=calendar_id, booking_ids=ids)
    bookings.update(
        attendee_name="",
        attendee_email="",
        attendee_phone="",
        language="",
        notes="",
        cancellation_reason="",
        metadata={},
    )
    sent = Attempt.objects.filter(
        delivery__calendar=calendar_id,
        delivery__event__calendar=calendar_id,
        delivery__event__booking__calendar=calendar_id,
        delivery__event__booking__user=user,
    )
    sent.exclude(response="").update(response="")
    for ids in batches(bookings.order_by("id")):
        forget_reasons(calendar_id=calendar_id, booking_ids=ids)
        StaffNote.objects.filter(calendar=calendar_id, booking__in=ids).delete()
