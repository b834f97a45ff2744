"""The export of a user's reviews. After an account is deleted, its reviews stay, without a name."""

from collections.abc import Iterator
from typing import Any

from accounts.extensions import EXPORTERS
from accounts.models import User
from bookings.privacy import batches
from reviews.models import Review


@EXPORTERS.add("reviews")
def _export_reviews(user: User) -> Iterator[list[Any]]:
    columns = ("id", "booking_id", "service_id", "rating", "comment", "created_at", "updated_at")
    for ids in batches(Review.objects.filter(user=user).order_by("id")):
        yield [*Review.objects.filter(pk__in=ids).order_by("id").values(*columns)]
