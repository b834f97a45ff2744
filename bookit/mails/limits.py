"""Daily limits on emails.

An email is sent only if none of its limits has been reached, and then counts towards all of them.
The counts are rows in PostgreSQL. A single statement compares and increments a row, so concurrent
workers cannot exceed a limit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db.models import F, QuerySet
from django.utils.crypto import salted_hmac
from psycopg.rows import dict_row

from bookit.database.batches import delete_in_batches
from bookit.database.rows import fetch
from bookit.mails.models import MailCount

# How long counts are kept, so that operators can look up how many emails were not sent.
KEPT = timedelta(days=30)

# Counts an email towards each of its limits that has not been reached.
#
# Parameters: subjects text[], limits integer[] (in the order of subjects), day date.
# Columns: subject text, of each limit that had not been reached.
# Invariant: the constraint mail_counted_once allows one row per subject and day, which this
#   statement compares and increments. Rows are locked in the order of `subjects`. All emails list
#   the limits that they share in the same order, so workers never deadlock.
TAKE = """
INSERT INTO bookit_mailcount AS counted (subject, day, sent, most, withheld)
SELECT subject, %(day)s::date, 1, most, 0
FROM unnest(%(subjects)s::text[], %(limits)s::integer[]) AS wanted (subject, most)
ON CONFLICT (subject, day) DO UPDATE SET sent = counted.sent + 1, most = excluded.most
WHERE counted.sent < excluded.most
RETURNING subject
"""


@dataclass(frozen=True)
class Limit:
    """A limit that an email counts towards.

    Args:
        name: the kind of limit, in one word for the log, for example `address`.
        subject: what the limit applies to. It contains an email address only as a hash.
        most: the maximum number of emails per day.
    """

    name: str
    subject: str
    most: int


def take(limits: Sequence[Limit], *, at: datetime) -> list[Limit]:
    """Count an email towards all of its limits, or towards none if any limit has been reached.

    Returns:
        the limits that have been reached. If there are none, the email may be sent.
    """
    parameters = {
        "subjects": [limit.subject for limit in limits],
        "limits": [limit.most for limit in limits],
        "day": _day(at),
    }
    taken = {row["subject"] for row in fetch(TAKE, parameters, dict_row)}
    reached = [limit for limit in limits if limit.subject not in taken]
    if reached:
        give_back([limit for limit in limits if limit.subject in taken], at=at)
        for limit in reached:
            _count(limit, at).update(withheld=F("withheld") + 1)
    return reached


def give_back(limits: Sequence[Limit], *, at: datetime) -> None:
    """Subtract an email that was counted towards the limits but was not sent."""
    # Update the rows one at a time, in the order in which TAKE locks them, so that there are no
    # deadlocks.
    for limit in limits:
        _count(limit, at).filter(sent__gt=0).update(sent=F("sent") - 1)


def prune_mail_counts(*, at: datetime) -> int:
    """Delete counts that are more than 30 days old, and return their number."""
    return delete_in_batches(MailCount.objects.filter(day__lt=_day(at - KEPT)), by="day")


def _count(limit: Limit, at: datetime) -> QuerySet[MailCount]:
    return MailCount.objects.filter(subject=limit.subject, day=_day(at))


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def hashed(address: str) -> str:
    """Return a hash of an email address that is the same for all known spellings of a mailbox.

    Many mail servers ignore a plus sign and the text after it, and Gmail ignores dots. If each
    spelling had a limit of its own, the number of emails to one person would be unlimited.
    """
    name, _, host = address.strip().lower().rpartition("@")
    # A plus sign at the beginning stays, because the name would be empty without it.
    name = re.sub(r"(?<=.)\+.*", "", name)
    if host in ("gmail.com", "googlemail.com"):
        name, host = name.replace(".", ""), "gmail.com"
    return salted_hmac("bookit.mail_limits", f"{name}@{host}", algorithm="sha256").hexdigest()
