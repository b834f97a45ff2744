"""Waits for the transactions of other tests."""

from time import monotonic, sleep

from django.db.models import Max

from bookings.models import BookingEvent
from bookit.tests.crowd import PATIENCE, ask


def settle():
    """Wait until all transactions that are older than the last event have ended.

    The feed and the tally wait for them, too, and for those of tests that run at the same time.
    """
    last = BookingEvent.objects.aggregate(last=Max("transaction"))["last"] or 0
    deadline = monotonic() + 4 * PATIENCE  # Some tests keep a transaction open for a minute.
    while ask("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint") <= last:
        assert monotonic() < deadline, "a transaction of another test is still open"
        sleep(0.02)
