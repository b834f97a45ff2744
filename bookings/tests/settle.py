"""Waits for the transactions of other tests."""

from time import monotonic, sleep

from django.db.models import Max

from bookings.models import BookingEvent
from bookit.database.citus.nodes import open_positions
from bookit.tests.crowd import PATIENCE


def settle():
    """Wait until all transactions that are older than the last event of their server have ended.

    `/events` and the stored total of `bookings.tally` leave out events that are newer than an open
    transaction. Tests that run at the same time also keep transactions open.
    """
    events = BookingEvent.objects.order_by("server").values("server")
    lasts = {each["server"]: each["last"] for each in events.annotate(last=Max("transaction"))}
    deadline = monotonic() + 4 * PATIENCE  # Some tests keep a transaction open for a minute.
    while any(
        position <= lasts.get(server, 0)
        for server, position in open_positions(using="default").items()
    ):
        assert monotonic() < deadline, "a transaction of another test is still open"
        sleep(0.02)
