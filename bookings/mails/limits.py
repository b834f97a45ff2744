"""Limits on mails: how many a day go to an address, and to each reader of a booking.

A mail counts against the limit of its booking and the limit of its address. It is sent only if it
is within both. The counts are rows in PostgreSQL. One statement compares and increments each row,
so any number of workers can count at once and still stay within a limit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import F, QuerySet
from django.utils.crypto import salted_hmac
from psycopg.rows import dict_row

from bookings.mails.models import MailCount
from bookit.database.batches import delete_in_batches
from bookit.database.rows import fetch

# How long counts are kept, so that operators can find out what was not sent.
KEPT = timedelta(days=30)

# Counts a mail against each of its limits that is not reached.
#
# Parameters: subjects text[], limits integer[] (in the order of subjects), day date.
# Columns: subject text, of each limit that was not reached.
# Invariant: mail_count_once makes one row per subject and day, which one statement compares and
#   increments. Rows are always locked in the same order, the booking's first, so that workers never
#   deadlock.
TAKE = """
INSERT INTO bookings_mailcount AS counted (subject, day, sent, most, withheld)
SELECT subject, %(day)s::date, 1, most, 0
FROM unnest(%(subjects)s::text[], %(limits)s::integer[]) AS wanted (subject, most)
ON CONFLICT (subject, day) DO UPDATE SET sent = counted.sent + 1, most = excluded.most
WHERE counted.sent < excluded.most
RETURNING subject
"""


@dataclass(frozen=True)
class Limit:
    """A limit that a mail counts against.

    Args:
        name: `booking` or `address`.
        subject: what the limit applies to; an address is stored only as a hash.
        most: how many mails a day are within the limit.
    """

    name: str
    subject: str
    most: int


def limits_of(
    *, booking_id: UUID | str, audience: str, address: str, is_verified: bool, is_last: bool
) -> list[Limit]:
    """Return the limits that a mail counts against.

    Args:
        is_last: the mail says that the booking is over. One more mail is allowed for it, so that
            readers of a booking that was moved often still hear that it was cancelled.
    """
    return [
        Limit("booking", f"booking/{booking_id}/{audience}", settings.MAILS_PER_BOOKING + is_last),
        Limit(
            "address",
            f"address/{_hash(address)}",
            settings.MAILS_PER_VERIFIED_ADDRESS if is_verified else settings.MAILS_PER_ADDRESS,
        ),
    ]


def take(limits: Sequence[Limit], *, at: datetime) -> list[Limit]:
    """Count a mail against all of its limits, or against none if one of them is reached.

    Returns:
        the limits that are reached. The mail may be sent if there are none.
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
        _counts(reached, at).update(withheld=F("withheld") + 1)
    return reached


def give_back(limits: Sequence[Limit], *, at: datetime) -> None:
    """Take back the count of a mail that was not sent after all."""
    _counts(limits, at).filter(sent__gt=0).update(sent=F("sent") - 1)


def prune_mail_counts(*, at: datetime) -> int:
    """Delete counts that are more than 30 days old, and return how many were deleted."""
    return delete_in_batches(MailCount.objects.filter(day__lt=_day(at - KEPT)), by="day")


def _counts(limits: Sequence[Limit], at: datetime) -> QuerySet[MailCount]:
    """Return the counts of some limits on the day of `at`."""
    return MailCount.objects.filter(subject__in=[limit.subject for limit in limits], day=_day(at))


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def _hash(address: str) -> str:
    """Return the same hash for all addresses of one mailbox, as far as that can be known.

    Many mailboxes ignore what follows a plus, and Gmail ignores dots. If these counted as different
    addresses, the number of mails to one person would have no limit.
    """
    name, _, host = address.strip().lower().rpartition("@")
    name = re.sub(r"(?<=.)\+.*", "", name)
    if host in ("gmail.com", "googlemail.com"):
        name, host = name.replace(".", ""), "gmail.com"
    return salted_hmac("bookings.mail_limits", f"{name}@{host}", algorithm="sha256").hexdigest()
