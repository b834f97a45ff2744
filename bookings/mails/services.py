"""Enqueues and sends the emails about bookings.

Each event enqueues one job per email. The worker composes the email and sends it, unless a limit
has been reached (`bookit.mails.limits`). An email may arrive twice, because a worker may die after
sending it and before finishing the job. Both emails get the same Message-ID, which is made of ids,
so that email clients can recognise the second email.

A booking can be moved many times. Therefore, the email about a move is sent a little later, and
covers all moves until then: it shows the time before the first move and the current time. No email
is sent if somebody moved the booking and then moved it back. If the attendee's email address
changes while the booking is pending or confirmed and has not started, which is called a handover,
the emails to the new and to the former attendee are also sent a little later. The email to the new
attendee shows the booking as it is when the email is sent. As long as this email waits, the new
attendee has not been told about the booking, and gets no other email. Emails about all other events
are sent immediately. Except for reminders, each of these events happens to a booking only once.

If the mail server or the workers were unavailable, emails are late, and can arrive in another order
than their events. A late email that is no longer true is not sent.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, Subquery
from psycopg.rows import dict_row, scalar_row

from bookings.mails import texts as mail_texts
from bookings.mails.composition import Mail, compose, compose_farewell
from bookings.mails.occasions import ATTENDEE, FORMER, Occasion, Type, occasions
from bookings.models import Booking, BookingEvent
from bookit.database.citus.lookups import by_id
from bookit.database.rows import fetch
from bookit.errors import Conflict
from bookit.mails.limits import hashed
from bookit.mails.sending import Job, defer, send_within_limits

#: The task that composes the email about an event, and sends it.
SEND = "bookings.send_mail"

#: The task that sends an email which was composed before its booking, slot or account was deleted,
#: or before its booking was given to another attendee.
COMPOSED = "bookings.send_composed_mail"

# An email is late if it is sent more than this long after its event.
LATE = timedelta(minutes=1)

# The email to the new attendee is put off by this much as long as the handover or a later event of
# the booking has not been followed up. If the former attendee is the user who booked, or is the
# attendee again, the email to them is put off by this much as long as the handover has not been
# followed up or the email to the new attendee is being sent; see `send_composed`.
BEHIND = timedelta(seconds=5)

# `resend` searches this many of a booking's latest events for the attendee's last email.
MAX_EVENTS = 100

# Finds the events of bookings whose emails have not been sent yet, or will be sent again
# (`resend`).
#
# Parameters: calendar_id uuid, booking_ids uuid[].
# Columns: event_id uuid, audience text (the reader to whom the email is to be sent; null means
#   all readers), is_copy boolean (whether this email was sent before).
# Invariant: an event is committed together with the job that announces it, or with that job's row
#   in the outbox. Therefore, if this statement finds no job of an event, the event's job has ended.
#   A job with `only_webhooks` waits after the emails of its events have been enqueued.
#   Ids are compared as text, because a job that was enqueued by hand can name anything.
PENDING = """
WITH job AS MATERIALIZED (
    SELECT args FROM procrastinate_jobs
    WHERE status IN ('todo', 'doing')
      AND task_name IN ('bookings.follow_up', 'bookings.send_mail')
      AND NOT args ? 'only_webhooks'
), unfinished AS (
    SELECT args FROM job UNION ALL
    SELECT args FROM bookit_outbox
    WHERE calendar_id = %(calendar_id)s AND task IN ('bookings.follow_up', 'bookings.send_mail')
), named AS (
    SELECT event_id #>> '{}' AS event_id, args->>'audience' AS audience,
        args->>'copy' IS NOT NULL AS is_copy
    FROM unfinished, jsonb_path_query(
        jsonb_build_array(args->'event_id', args->'event_ids'), '$[*][*]'
    ) AS event_id
)
SELECT event.id AS event_id, named.audience, named.is_copy
FROM bookings_bookingevent AS event JOIN named ON named.event_id = event.id::text
WHERE event.calendar_id = %(calendar_id)s AND event.booking_id = ANY(%(booking_ids)s::uuid[])
ORDER BY event.id
"""

# Finds emails that are waiting to be sent, and locks their jobs, so that no worker sends them
# before the end of the transaction. An email that is being sent is not waiting.
#
# Parameters: locks text[] (the queueing locks of the jobs).
# Columns: queueing_lock text.
WAITING = """
SELECT queueing_lock FROM procrastinate_jobs
WHERE status = 'todo' AND queueing_lock = ANY(%(locks)s::text[])
ORDER BY queueing_lock FOR UPDATE
"""

# Finds the job of an email that is waiting to be sent, or is being sent.
#
# Parameters: lock text (the queueing lock of the job).
# Columns: is_waiting boolean (false: it is being sent), due_at timestamptz (null means
#   immediately).
UNSENT = """
SELECT status = 'todo' AS is_waiting, scheduled_at AS due_at FROM procrastinate_jobs
WHERE status IN ('todo', 'doing') AND queueing_lock = %(lock)s
"""


def enqueue(*, events: Iterable[BookingEvent]) -> None:
    """Enqueue one job for each email that the events cause, unless the job is already waiting.

    While the job for a move waits, later moves of the booking enqueue no job for the same reader,
    because that job reports them too.
    """
    jobs: dict[str, Job] = {}
    chosen = [*events]
    calendars = {event.calendar_id for event in chosen}
    for occasion, readers in _with_readers(occasions(calendars, [event.pk for event in chosen])):
        has_pause = occasion.is_handover or occasion.type == Type.RESCHEDULED
        scheduled_at = occasion.at + settings.MAIL_PAUSE if has_pause else None
        # The job of a handover is enqueued even if the booking has ended: as long as the job waits,
        # no email about the end goes to the new attendee.
        readers = [ATTENDEE] if occasion.is_handover else readers
        for audience in readers:
            jobs.setdefault(_lock(occasion, audience), (_args(occasion, audience), scheduled_at))
    defer(SEND, jobs)


def _args(occasion: Occasion, audience: str) -> dict[str, str]:
    """Return the arguments of the job that sends an email."""
    return {
        "calendar_id": str(occasion.calendar_id),
        "event_id": str(occasion.event_id),
        "audience": audience,
    }


def _lock(occasion: Occasion, audience: str) -> str:
    """Return the queueing lock of the job that sends an email.

    All moves share one job for each reader, but the attendees before and after a handover are
    different readers.
    """
    if occasion.type != Type.RESCHEDULED:
        return _lock_of(occasion.event_id, audience)
    if audience == ATTENDEE and occasion.handover_id:
        return _lock_of(occasion.booking_id, occasion.handover_id, audience)
    return _lock_of(occasion.booking_id, audience)


def _lock_of(*parts: UUID | str) -> str:
    """Return the queueing lock of a job: the name of its task, ids, and the reader."""
    return "/".join([SEND, *map(str, parts)])


def _waiting(locks: Sequence[str]) -> set[str]:
    """Return the queueing locks whose emails are waiting to be sent, and lock these jobs."""
    return {*fetch(WAITING, {"locks": locks}, scalar_row)} if locks else set()


def _behind(calendar_id: UUID, booking_ids: Sequence[UUID]) -> set[UUID]:
    """Return the events of bookings that have not been followed up."""
    named = {"calendar_id": calendar_id, "booking_ids": booking_ids}
    return {row["event_id"] for row in fetch(PENDING, named, dict_row) if row["audience"] is None}


def _untold(places: Mapping[UUID, tuple[UUID, UUID]]) -> set[UUID]:
    """Return those of these events about which the attendees have not got the email yet.

    The email is waiting, or the event has not been followed up, so that there is no job yet.

    Args:
        places: for the id of each event, its calendar and its booking.
    """
    bookings: dict[UUID, list[UUID]] = {}
    for calendar_id, booking_id in places.values():
        bookings.setdefault(calendar_id, []).append(booking_id)
    # The follow-ups are checked first: they enqueue the jobs before they end.
    behind = {each for calendar, named in bookings.items() for each in _behind(calendar, named)}
    locks = {_lock_of(event_id, ATTENDEE): event_id for event_id in places}
    waiting = {locks[lock] for lock in _waiting([*locks])}
    return (behind | waiting) & places.keys()


def _with_readers(found: Sequence[Occasion]) -> Iterator[tuple[Occasion, list[str]]]:
    """Yield occasions with their readers, except attendees whose email about a handover waits."""
    untold = _untold(
        {
            each.handover_id: (each.calendar_id, each.booking_id)
            for each in found
            if each.handover_id and not each.is_handover and ATTENDEE in each.audiences
        }
    )
    for each in found:
        is_untold = not each.is_handover and each.handover_id in untold
        yield each, [name for name in each.audiences if not (is_untold and name == ATTENDEE)]


def enqueue_composed(*, booking: Booking) -> None:
    """Compose the pending emails about a booking that will be deleted, and enqueue their jobs.

    Emails that no longer apply are left out, and emails that have been sent before are not sent
    again.
    """
    _defer_composed(_unsent(booking.calendar_id, [booking.pk]))


def enqueue_cancellations(*, calendar_id: UUID, booking_ids: Sequence[UUID]) -> None:
    """Compose the pending emails that tell attendees that these bookings have been cancelled.

    The caller erases the data of the user who booked, including the addresses of attendees, who
    have to know that they need not come. Emails to the user's own address are left out. The others
    contain no personal data of a customer except the attendee's address; see
    `bookings.mails.composition`.
    """
    _defer_composed(
        (occasion, audience)
        for occasion, audience in _unsent(calendar_id, booking_ids)
        if occasion.type == Type.CANCELLED and audience == ATTENDEE and not occasion.is_to_user
    )


def enqueue_farewell(*, event: BookingEvent) -> None:
    """Compose the email to the former attendee of a booking, and enqueue its job.

    Do nothing unless `event` gives the booking to another attendee, or if the former attendee has
    not been told about the booking. The caller changes the booking afterwards.
    """
    [found] = occasions([event.calendar_id], [event.pk])
    if not found.is_handover or ATTENDEE not in found.audiences:
        return
    events = BookingEvent.objects.filter(calendar=event.calendar_id, booking=event.booking_id)
    created = events.filter(type=Type.CREATED).values_list("pk", flat=True)
    told_by = [found.handover_id] if found.handover_id else [*created]
    if not _untold(dict.fromkeys(told_by, (found.calendar_id, found.booking_id))):
        mail = compose_farewell(found, mail_texts.in_use())
        _defer_farewell(mail, str(found.user_id), found.at + settings.MAIL_PAUSE)


def _defer_farewell(mail: Mail, user_id: str, at: datetime) -> None:
    args = {"mail": asdict(mail), "user_id": user_id}
    defer(COMPOSED, {f"{COMPOSED}/{mail.message_id}/{at.isoformat()}": (args, at)})


def _unsent(calendar_id: UUID, booking_ids: Sequence[UUID]) -> Iterator[tuple[Occasion, str]]:
    """Yield the emails, never sent before, about bookings that the caller deletes or erases."""
    named = {"calendar_id": calendar_id, "booking_ids": booking_ids}
    rows = [row for row in fetch(PENDING, named, dict_row) if not row["is_copy"]]
    if not rows:
        return
    pending = {(row["event_id"], row["audience"]) for row in rows}
    found = occasions([calendar_id], {row["event_id"] for row in rows})
    # A booking that will be deleted still has its old status. Once it is deleted, emails about
    # moves, reminders and offers no longer apply, and links to the booking lead nowhere.
    ended = [replace(each, is_current=False, is_over=True) for each in found]
    for occasion, readers in _with_readers(ended):
        for audience in readers:
            if pending & {(occasion.event_id, None), (occasion.event_id, audience)}:
                yield occasion, audience


def _defer_composed(mails: Iterable[tuple[Occasion, str]]) -> None:
    """Compose emails, and enqueue their jobs."""
    texts = mail_texts.in_use()
    jobs: dict[str, Job] = {}
    for occasion, audience in mails:
        args = {
            "mail": asdict(compose(occasion, audience, texts)),
            "user_id": str(occasion.user_id),
        }
        jobs[f"{COMPOSED}/{occasion.event_id}/{audience}"] = (args, None)
    defer(COMPOSED, jobs)


class NothingToResend(Conflict):
    """The customer got no email that still applies, so there is nothing to send again."""


@dataclass(frozen=True)
class Announcement:
    """An email about an event of a booking.

    Args:
        audiences: its readers: the attendee, the provider, or both.
        label: the beginning of its subject.
        is_waiting: whether the email, or a copy of it, is still to be sent to one of its readers.
    """

    at: datetime
    audiences: list[str]
    label: str
    is_waiting: bool


def announcements(*, booking: Booking, event_ids: Sequence[UUID]) -> list[Announcement]:
    """Return the emails that events of a booking have caused, in three queries.

    Emails to former attendees are left out. Emails that were not sent, because of a limit or
    because the booking changed first, are included. BookIt does not store which emails these are.
    """
    named = {"calendar_id": booking.calendar_id, "booking_ids": [booking.pk]}
    rows = fetch(PENDING, named, dict_row)
    pending = {(row["event_id"], row["audience"]) for row in rows}
    texts = mail_texts.in_use()
    found = []
    for occasion, readers in _as_announced(occasions([booking.calendar_id], event_ids)):
        if occasion.news and readers:
            waiting = [each for each in (None, *readers) if (occasion.event_id, each) in pending]
            found.append(
                Announcement(
                    at=occasion.at,
                    audiences=readers,
                    label=mail_texts.applied(occasion.news, texts).label,
                    is_waiting=bool(waiting),
                )
            )
    return found


def _as_announced(found: Sequence[Occasion]) -> Iterator[tuple[Occasion, list[str]]]:
    """Yield the occasions as they were when their emails were sent, each with its readers.

    When a reminder was sent, the booking still had the status and the start time that the event of
    the reminder records, whatever happened to the booking later. If one email to a reader covers
    several moves, only the first of them has this reader. The email about a handover covers all
    events during its pause.
    """
    covered_until: dict[str, datetime] = {}
    for each in found:
        occasion = replace(each, is_current=True, is_over=False, was_handed_over=False)
        if occasion.is_handover:
            covered = [one for one in found if one.is_covered and one.handover_id == each.event_id]
            occasion = replace(occasion, status=[each, *covered][-1].status)
        readers = [name for name in occasion.audiences if name != ATTENDEE or not each.is_covered]
        if occasion.type == Type.RESCHEDULED:
            at = occasion.at
            readers = [name for name in readers if at >= covered_until.get(name, at)]
            covered_until |= dict.fromkeys(readers, at + settings.MAIL_PAUSE)
        yield occasion, readers


@transaction.atomic
def resend(*, booking: Booking, at: datetime) -> None:
    """Enqueue the attendee's last email about a booking once more.

    If this email is still waiting, it is sent immediately instead.

    The copy counts towards the same limits as every other email about the booking. If the last
    email was about several moves, the copy shows only the last move. If somebody moved the booking
    and then moved it back, so that no email was sent, the copy shows the move back.

    Raises:
        NothingToResend: the booking has no email that is still true and that the attendee can get.
    """
    found = [*_with_readers(_latest(booking.calendar_id, booking.pk, MAX_EVENTS))]
    told = [each for each, readers in found if ATTENDEE in readers and not each.is_covered]
    last = told[-1] if told else None
    if last is None or not (last.is_current or last.is_handover):
        raise NothingToResend
    lock, args = _lock(last, ATTENDEE), _args(last, ATTENDEE)
    if not _waiting([lock]):
        lock, args = f"{_lock_of(last.event_id, ATTENDEE)}/copy", {**args, "copy": at.isoformat()}
    defer(SEND, {lock: (args, None)})


def _latest(calendar_id: UUID, booking_id: UUID, most: int = 1) -> list[Occasion]:
    """Return the occasions of the latest events of a booking, ordered by their ids."""
    events = BookingEvent.objects.filter(calendar=calendar_id, booking=booking_id)
    latest = events.order_by("-id").values_list("pk", flat=True)[:most]
    return occasions([calendar_id], latest)


def send(*, calendar_id: UUID, event_id: UUID, audience: str, at: datetime, copy: str = "") -> None:
    """Send the email about an event, unless the booking was deleted or the email no longer applies.

    A late email no longer applies if the booking has got another status or time since its event.
    But the email about a move covers later moves, and the email about a handover shows the booking
    as it is now.

    Args:
        copy: the time at which somebody asked for a copy; empty for the first email. The time
            becomes a part of the Message-ID, because email clients hide a second email with the
            same Message-ID.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    for occasion in occasions([calendar_id], [event_id]):
        announced: Occasion | None = None
        if occasion.type == Type.RESCHEDULED:
            announced = _with_later_moves(occasion, audience)
        elif occasion.is_handover:
            # The follow-up enqueues no email to an attendee for whom this job waits. If this job
            # ended first without an email, the attendee would get one about the end of the booking.
            if (
                not copy
                and not occasion.was_handed_over
                and any(each >= event_id for each in _behind(calendar_id, [occasion.booking_id]))
            ):
                args = _args(occasion, audience)
                defer(SEND, {_lock(occasion, audience): (args, at + BEHIND)})
                return
            announced = _as_it_is_now(occasion)
        elif occasion.is_current or at - occasion.at <= LATE:
            announced = occasion
        if announced is not None and audience in announced.audiences:
            mail = compose(announced, audience, mail_texts.in_use())
            if copy:
                mark = "".join(each for each in copy if each.isalnum())
                mail = replace(mail, message_id=mail.message_id.replace("<", f"<{mark}.", 1))
            deliver(mail=mail, at=at)


def send_composed(*, mail: Mail, user_id: str, at: datetime) -> None:
    """Send an email that was composed earlier.

    The email to a former attendee is not sent if its reader is the attendee again, or is the user
    who booked, unless the booking was cancelled or deleted or has expired. Different spellings of a
    mailbox count as one reader.

    Args:
        user_id: the user who booked.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    if mail.audience == FORMER:
        with suppress(Booking.DoesNotExist):
            booking = by_id(Booking.objects.select_related("user"), mail.booking_id).get()
            staying = [booking.user.mailbox, booking.attendee()["attendee_email"]]
            if booking.status in Booking.BOOKED and hashed(mail.to) in map(hashed, staying):
                # Until the email to the new attendee has been sent, nobody else would tell the
                # reader that the booking ends.
                for last in _latest(booking.calendar_id, booking.pk):
                    again_at = _when_told(last, at)
                    if again_at is not None:
                        _defer_farewell(mail, user_id, again_at)
                    return
    deliver(mail=mail, at=at)


def _when_told(last: Occasion, at: datetime) -> datetime | None:
    """Return when to check again whether a new attendee has been told, or None if they have been.

    Args:
        last: the latest event of the booking.
        at: the time of this check.
    """
    given_by = last.event_id if last.is_handover else last.handover_id
    if given_by is None:
        return None
    if given_by in _behind(last.calendar_id, [last.booking_id]):
        return at + BEHIND
    for job in fetch(UNSENT, {"lock": _lock_of(given_by, ATTENDEE)}, dict_row):
        return max(job["due_at"] or at, at) if job["is_waiting"] else at + BEHIND
    return None


def deliver(*, mail: Mail, at: datetime) -> None:
    """Send an email, unless one of its limits has been reached.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    send_within_limits(
        mail.message(),
        limits=mail.limits(),
        at=at,
        booking_id=mail.booking_id,
        audience=mail.audience,
    )


def _as_it_is_now(handover: Occasion) -> Occasion | None:
    """Return a handover with the present status and time of its booking, or None if deleted."""
    for last in _latest(handover.calendar_id, handover.booking_id):
        return replace(
            handover,
            status=last.status,
            start_time=last.start_time,
            end_time=last.end_time,
            sequence=last.sequence,
        )
    return None


def _with_later_moves(first: Occasion, audience: str) -> Occasion | None:
    """Return the last move of a booking, with the time before the first move as its old time.

    Return None if the booking was deleted, or if it was moved back. Also return None if another
    email shows the current time: because the booking was given to another attendee before its last
    move, or because it was confirmed after its last move.
    """
    events = BookingEvent.objects.filter(calendar=first.calendar_id, booking=first.booking_id)
    last_move = events.filter(type=Type.RESCHEDULED).order_by("-id").values("pk")[:1]
    since = events.filter(pk__gte=Subquery(last_move)).values_list("pk", flat=True)
    found = occasions([first.calendar_id], since)
    if any(each.type == Type.CONFIRMED and audience in each.audiences for each in found):
        return None
    if not found or _is_undone(first, found[0]):
        return None
    if audience == ATTENDEE and found[0].handover_id != first.handover_id:
        return None
    return replace(found[0], was_start_time=first.was_start_time, was_end_time=first.was_end_time)


def _is_undone(first: Occasion, last: Occasion) -> bool:
    """Return whether the user who moved a booking has moved it back, so readers need not know.

    If somebody else moved it back, or if it was confirmed in between, readers may know the time
    that no longer applies.
    """
    if (first.was_start_time, first.was_end_time) != (last.start_time, last.end_time):
        return False
    events = BookingEvent.objects.filter(calendar=first.calendar_id, booking=first.booking_id)
    by_mover = Q(type__in=[Type.RESCHEDULED, Type.CHANGED], actor=first.actor_id)
    return not events.filter(~by_mover, pk__gte=first.event_id).exists()
