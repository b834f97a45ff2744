"""Stores reviews of completed bookings."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from bookit.tools.demo.calendars import StoredCalendar
from bookit.tools.demo.chance import Chance
from bookit.tools.demo.drafts import Draft, Status
from bookit.tools.demo.entries import CalendarEntry, ReviewEntry, ServiceEntry
from catalog.models import Service
from reviews.models import Review

# The ratings of reviews without a comment, and how often each of them is given, in percent.
RATINGS, WEIGHTS = (5, 4, 3, 2), (60, 28, 9, 3)


def store_reviews(
    drafts: Sequence[Draft],
    calendars: Sequence[StoredCalendar],
    chance: Chance,
    *,
    at: datetime,
) -> list[Review]:
    """Store and return reviews of some of the bookings. Update the ratings of the services."""
    writer = _Writer(calendars, chance, at=at)
    reviews = [review for draft in drafts if (review := writer.review(draft)) is not None]
    Review.objects.bulk_create(reviews)
    ratings: dict[UUID, list[int]] = defaultdict(list)
    for review in reviews:
        ratings[review.service_id].append(review.rating)
    services = [service.service for calendar in calendars for service in calendar.services]
    for service in services:
        given = ratings[service.pk]
        service.rating_sum, service.rating_count = sum(given), len(given)
    Service.objects.bulk_update(services, ["rating_sum", "rating_count"])
    return reviews


class _Writer:
    """Decides which bookings are reviewed. Each review of the files is stored at most once."""

    def __init__(
        self, calendars: Sequence[StoredCalendar], chance: Chance, *, at: datetime
    ) -> None:
        self.chance, self.random = chance, chance.random
        self.at = at
        self.reviewed: set[tuple[CalendarEntry, UUID]] = set()
        #: The unused reviews of the town's files, by calendar or service.
        self.unused: dict[CalendarEntry | ServiceEntry, list[ReviewEntry]] = {}
        for calendar in calendars:
            self._shuffle(calendar.entry)
            for service in calendar.entry.services:
                self._shuffle(service)

    def _shuffle(self, entry: CalendarEntry | ServiceEntry) -> None:
        self.unused[entry] = self.random.sample(entry.reviews, len(entry.reviews))

    def review(self, draft: Draft) -> Review | None:
        """Return the review of a booking, or None if the customer writes no review."""
        booking, calendar = draft.booking, draft.service.calendar_entry
        later = booking.end_time + self.random.random() * timedelta(days=4)
        written = self.chance.same_day(later)
        # A customer reviews a calendar at most once.
        key = (calendar, booking.user_id)
        if (
            booking.status != Status.COMPLETED
            or not draft.steps[-1].at < written < self.at
            or key in self.reviewed
            or self.random.random() < 0.4
        ):
            return None
        self.reviewed.add(key)
        rating, comment = self._opinion(draft)
        return Review(
            id=self.chance.uuid(written),
            calendar_id=booking.calendar_id,
            booking=booking,
            service=booking.service,
            user=booking.user,
            rating=rating,
            comment=comment,
            created_at=written,
            updated_at=written,
        )

    def _opinion(self, draft: Draft) -> tuple[int, str]:
        """Return a rating and a comment, which may be empty."""
        service = draft.service
        unused = self.unused[service.entry] or self.unused[service.calendar_entry]
        if unused and self.random.random() < 0.75:
            review = unused.pop()
            return review.rating, review.comment
        return self.random.choices(RATINGS, WEIGHTS)[0], ""
