"""Sends emails: one job for each email, within daily limits."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from django.core.mail import EmailMultiAlternatives
from django.db import connection

from bookit.jobs.queues import EARLIER_TIME
from bookit.mailboxes import NOWHERE
from bookit.mails import limits as mail_limits

logger = logging.getLogger(__name__)

# The arguments of a job, and the time at which it runs. None means immediately.
Job = tuple[dict[str, Any], datetime | None]

# Enqueues jobs that send emails, except jobs that are already waiting. A waiting job, which may
# have failed before, runs at the earlier of its own time and the new time. If there is no new time,
# it runs immediately, and its earlier attempts no longer count.
#
# Parameters: task text (the name of the task), locks text[] (their queueing locks), args text[]
#   (their arguments as JSON), times timestamptz[] (when they run; null means immediately).
# Columns: none.
# Invariant: a unique index of procrastinate allows one waiting job per queueing lock. If two
#   transactions enqueue the same email at the same time, the second transaction waits for the
#   first. It enqueues the email only if the first transaction is rolled back. The statement
#   enqueues in the order of the queueing locks, so that two statements with the same emails do not
#   deadlock. A waiting job is updated even if its time stays the same. The update locks the job, so
#   that no worker composes its email before the changes of the transaction are committed.
DEFER = f"""
INSERT INTO procrastinate_jobs (queue_name, task_name, queueing_lock, args, scheduled_at)
SELECT 'mails', %(task)s, job.queueing_lock, job.args::jsonb, job.scheduled_at
FROM unnest(%(locks)s::text[], %(args)s::text[], %(times)s::timestamptz[])
    AS job (queueing_lock, args, scheduled_at)
ORDER BY job.queueing_lock
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO UPDATE SET
    scheduled_at = {EARLIER_TIME},
    attempts = CASE
        WHEN excluded.scheduled_at IS NULL THEN 0 ELSE procrastinate_jobs.attempts
    END
"""  # noqa: S608 - the inserted text is a constant


def defer(task: str, jobs: Mapping[str, Job]) -> None:
    """Enqueue jobs that send emails, in the caller's transaction.

    Args:
        jobs: the arguments and the time of each job, by its queueing lock.
    """
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


def send_within_limits(
    message: EmailMultiAlternatives,
    *,
    limits: Sequence[mail_limits.Limit],
    at: datetime,
    **about: str,
) -> None:
    """Send an email, unless its address ends in `NOWHERE` or one of its limits has been reached.

    Args:
        about: ids for the log that say what the email is about, without any email address.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    if all(address.endswith(NOWHERE) for address in message.to):
        return
    reached = mail_limits.take(limits, at=at)
    if reached:
        logger.warning(
            "mail withheld: the limit of its %s has been reached", reached[0].name, extra=about
        )
        return
    try:
        message.send()
    except BaseException:
        # The job is retried, and the retry counts the email again.
        mail_limits.give_back(limits, at=at)
        raise
