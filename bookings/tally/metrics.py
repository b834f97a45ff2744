"""The metrics of bookings."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from bookings.tally import services as tally
from bookit.metrics.extensions import COLLECTORS
from bookit.metrics.process import EventCounter

#: Requests that were refused because no seat was free, or because the calendar was occupied.
CONFLICTS = EventCounter(
    "bookit_booking_conflicts_total", "Requests whose time or slot was already booked."
)


@COLLECTORS.add("bookings")
def bookings() -> Iterator[Metric]:
    """Yield the metrics of bookings from PostgreSQL."""
    total = CounterMetricFamily(
        "bookit_bookings_total", "How often a booking has reached a status.", labels=["status"]
    )
    for status, count in tally.totals().items():
        total.add_metric([status], count)
    yield total
