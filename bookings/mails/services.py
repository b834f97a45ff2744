"""Mails about bookings: who gets which, when, and what it says.

Each event defers a job for each mail. The worker reads what the mail is about and sends it, unless
a limit is reached (`mail_limits`). A mail may come twice, because a worker may die when it has sent
one; its Message-ID follows from the event and the reader, so it can be known for the same.

A booking can be moved again and again. So a move is told a little later, and moves that follow it
until then are told with it: where the booking was before, and where it is now. Nothing else happens
to a booking more than once, and is told at once.
"""

import logging
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import orjson
from django.conf import settings
from django.db import connection

from bookings.mails import limits as mail_limits
from bookings.mails.composition import Mail, compose
from bookings.mails.occasions import Occasion, Type, occasions
from bookings.models import Booking, BookingEvent
from bookit.database.rows import fetch

logger = logging.getLogger(__name__)

# A job's arguments, and when it is to run: None for at once.
Job = tuple[dict[str, Any], datetime | None]

# All at once, but for those that wait already. Who enqueues the same at the same moment fails here
# as a whole, and is tried again.
DEFER = """
SELECT enqueue_job('mails', %(task)s, job.args::jsonb, job.queueing_lock, job.scheduled_at)
FROM unnest(%(locks)s::text[], %(args)s::text[], %(times)s::timestamptz[])
    AS job (queueing_lock, args, scheduled_at)
WHERE NOT EXISTS (
    SELECT FROM procrastinate_jobs AS waiting
    WHERE waiting.queueing_lock = job.queueing_lock AND waiting.status = 'todo'
)
"""

# The last move of a booking, and all that has happened since.
SINCE_LAST_MOVE = """
SELECT event.id FROM bookings_bookingevent AS event
WHERE event.booking_id = %(booking_id)s AND event.id >= (
    SELECT max(move.id) FROM bookings_bookingevent AS move
    WHERE move.booking_id = %(booking_id)s AND move.type = 'booking.rescheduled'
)
"""

# The events of a booking that nobody has been told of, with whom, or nothing for all. The job that
# tells of one is there to be seen from the moment at which the event is.
PENDING = """
SELECT event.id, job.args->>'audience'
FROM bookings_bookingevent AS event JOIN procrastinate_jobs AS job ON CASE job.task_name
    WHEN 'bookings.follow_up' THEN job.args->'event_ids' @> to_jsonb(event.id)
    WHEN 'bookings.send_mail' THEN (job.args->>'event_id')::bigint = event.id
END
WHERE event.booking_id = %(booking_id)s AND job.status IN ('todo', 'doing')
ORDER BY event.id
"""


def enqueue(*, events: Iterable[BookingEvent]) -> None:
    """Defer a job for each mail that events ask for, unless it waits already.

    Of the moves of a booking one job waits at a time, that of the first.
    """
    task = "bookings.send_mail"
    jobs: dict[str, Job] = {}
    for occasion in occasions([event.pk for event in events]):
        is_move = occasion.type == Type.RESCHEDULED
        what = occasion.booking_id if is_move else occasion.event_id
        scheduled_at = occasion.at + settings.MAIL_PAUSE if is_move else None
        for audience in occasion.audiences:
            args = {"event_id": occasion.event_id, "audience": audience}
            jobs.setdefault(f"{task}/{what}/{audience}", (args, scheduled_at))
    _defer(task, jobs)


def enqueue_composed(*, booking: Booking) -> None:
    """Defer the mails about a booking that wait still whole: it will be gone when they are sent."""
    rows = fetch(PENDING, {"booking_id": booking.pk})
    waiting = {*rows}
    task = "bookings.send_composed_mail"
    jobs: dict[str, Job] = {}
    for occasion in occasions([event_id for event_id, _ in rows]):
        if occasion.type == Type.RESCHEDULED:
            continue  # Where it was to be is of no interest any more.
        for audience in occasion.audiences:
            if waiting & {(occasion.event_id, None), (occasion.event_id, audience)}:
                mail = {"mail": asdict(compose(occasion, audience))}
                jobs[f"{task}/{occasion.event_id}/{audience}"] = (mail, None)
    _defer(task, jobs)


def send(*, event_id: int, audience: str, at: datetime) -> None:
    """Send the mail about an event, unless the booking is gone or nobody wants to know any more.

    Raises:
        OSError: the mail server does not take it (`smtplib.SMTPException` is one).
    """
    for occasion in occasions([event_id]):
        is_move = occasion.type == Type.RESCHEDULED
        told = _with_later_moves(occasion, audience) if is_move else occasion
        if told is not None and audience in told.audiences:
            deliver(mail=compose(told, audience), at=at)


def deliver(*, mail: Mail, at: datetime) -> None:
    """Send a mail, unless one of its limits is reached.

    Raises:
        OSError: the mail server does not take it (`smtplib.SMTPException` is one).
    """
    limits = mail.limits()
    reached = mail_limits.take(limits, at=at)
    if reached:
        logger.warning(
            "mail withheld: the limit of its %s has been reached",
            reached[0].name,
            extra={"booking_id": mail.booking_id, "audience": mail.audience},
        )
        return
    try:
        mail.message().send()
    except BaseException:
        # It is tried again, and counted then.
        mail_limits.give_back(limits, at=at)
        raise


def _with_later_moves(first: Occasion, audience: str) -> Occasion | None:
    """Return the last move of a booking as one from where it was before the first.

    None where the booking is gone, or where it was confirmed since: the mail about that says when
    it is.
    """
    rows = fetch(SINCE_LAST_MOVE, {"booking_id": first.booking_id})
    found = occasions([event_id for (event_id,) in rows])
    if any(each.type == Type.CONFIRMED and audience in each.audiences for each in found):
        return None
    return next(
        (
            replace(last, was_start_time=first.was_start_time, was_end_time=first.was_end_time)
            for last in found[:1]
        ),
        None,
    )


def _defer(task: str, jobs: dict[str, Job]) -> None:
    """Defer jobs, each under its queueing lock."""
    if not jobs:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            DEFER,
            {
                "task": task,
                "locks": [*jobs],
                "args": [orjson.dumps(args).decode() for args, _ in jobs.values()],
                "times": [scheduled_at for _, scheduled_at in jobs.values()],
            },
        )
