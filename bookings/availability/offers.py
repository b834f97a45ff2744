"""The free times of a service that may have unsaved changes, for a preview."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from bookings.availability.search import Search
from bookings.availability.terms import terms_of
from catalog.extensions import OFFERED, Offer
from catalog.models import Service


@OFFERED.add("bookings")
def offered(*, service: Service, from_: datetime, until: datetime, at: datetime) -> Iterator[Offer]:
    """Yield, in order, the free times that the search would find if `service` were saved.

    If the calendar of `service` was changed, the old calendar is searched. A service that is not
    stored has no free times.
    """
    stored = terms_of([service.pk], from_).get(service.pk)
    if stored is None:
        return
    horizon = service.max_advance_days
    terms = replace(
        stored,
        mode=service.mode,
        is_active=service.is_active,
        capacity=service.capacity,
        duration=timedelta(minutes=service.duration_minutes),
        step=timedelta(minutes=service.step_minutes or service.duration_minutes),
        buffer_before=timedelta(minutes=service.buffer_before_minutes),
        buffer_after=timedelta(minutes=service.buffer_after_minutes),
        notice=timedelta(minutes=service.min_notice_minutes),
        horizon=None if horizon is None else timedelta(days=horizon),
    )
    for time in Search([terms], from_, until, at=at).free_times(terms):
        yield Offer(time["start_time"], time["seats_left"])
