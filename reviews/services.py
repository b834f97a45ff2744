"""The rules for reviews."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils.translation import gettext as _

from accounts.models import User
from bookings import events
from bookings.models import Booking, BookingEvent
from bookit.database.retries import retried
from bookit.errors import Conflict, Forbidden, Invalid, database_error_facts
from catalog.models import Service
from reviews.models import Review


class BookingNotCompleted(Conflict):
    """Only completed bookings can be reviewed."""

    code = "booking_not_completed"


class ReviewExists(Conflict):
    """This booking already has a review. Change that review instead."""

    code = "review_exists"


@retried
def create_review(
    *, actor: User, booking_id: UUID, rating: int, at: datetime, comment: str = ""
) -> Review:
    """Review a completed booking, and add the rating to the totals of the service.

    Raises:
        Invalid: the booking does not exist.
        Forbidden: the booking belongs to another user.
        BookingNotCompleted: the booking is not completed.
        ReviewExists: the booking already has a review.
    """
    with transaction.atomic():
        # The lock prevents a concurrent request from marking the booking as a no-show.
        try:
            booking = Booking.with_id(booking_id).select_for_update(no_key=True).get()
        except Booking.DoesNotExist:
            raise Invalid.of("booking_id", _("There is no booking with this id.")) from None
        check_booked(booking, actor)
        if booking.status != Booking.Status.COMPLETED:
            raise BookingNotCompleted
        review = Review(
            calendar_id=booking.calendar_id,
            booking=booking,
            service_id=booking.service_id,
            user=actor,
            rating=rating,
            comment=comment,
            created_at=at,
            updated_at=at,
        )
        try:
            with transaction.atomic():
                review.save(force_insert=True)
        except IntegrityError as error:
            if database_error_facts(error)[0] == "23505":  # unique_violation
                raise ReviewExists from None
            raise
        events.record(
            booking,
            BookingEvent.Type.REVIEWED,
            actor=actor,
            at=at,
            review_id=str(review.pk),
            rating=rating,
        )
        _add_to_ratings(review.service_id, stars=rating, reviews=1)
    return review


@retried
def update_review(*, review_id: UUID, actor: User, changes: dict[str, Any], at: datetime) -> Review:
    """Change a review that `actor` wrote.

    Raises:
        Review.DoesNotExist: the review does not exist.
        Forbidden: `actor` is not the author.
    """
    with transaction.atomic():
        review = _locked_review(review_id)
        check_wrote(review, actor)
        if changes:
            before = review.rating
            for field, value in changes.items():
                setattr(review, field, value)
            review.updated_at = at
            review.save(update_fields=[*changes, "updated_at"])
            _add_to_ratings(review.service_id, stars=review.rating - before)
    return review


@retried
def delete_review(*, review_id: UUID, actor: User) -> None:
    """Delete a review, and subtract its rating from the totals of the service.

    Raises:
        Review.DoesNotExist: the review does not exist.
        Forbidden: `actor` is neither the author, nor an admin, nor permitted staff.
    """
    with transaction.atomic():
        review = _locked_review(review_id)
        check_may_delete(review, actor)
        review.delete()
        _add_to_ratings(review.service_id, stars=-review.rating, reviews=-1)


def check_booked(booking: Booking, actor: User) -> None:
    """Check that a booking belongs to `actor`.

    Raises:
        Forbidden: the booking belongs to another user.
    """
    if booking.user_id != actor.pk:
        raise Forbidden(_("This booking belongs to another user."))


def check_wrote(review: Review, actor: User) -> None:
    """Check that `actor` is the author of a review.

    Raises:
        Forbidden: the review belongs to another user.
    """
    if review.user_id != actor.pk:
        raise Forbidden(_("This review belongs to another user."))


def check_may_delete(review: Review, actor: User) -> None:
    """Check that `actor` may delete a review, as its author, an admin or permitted staff.

    Raises:
        Forbidden: `actor` is neither the author, nor an admin, nor permitted staff.
    """
    if not actor.may("reviews.delete_review"):
        check_wrote(review, actor)


def _locked_review(review_id: UUID) -> Review:
    rows = Review.with_id(review_id).select_for_update(of=("self",), no_key=True)
    review: Review = rows.select_related("user").get()
    return review


def _add_to_ratings(service_id: UUID, *, stars: int, reviews: int = 0) -> None:
    """Add `stars` and `reviews` to the rating totals of a service.

    Call this last in a transaction, because it locks the row of the service until the commit.
    """
    if stars or reviews:
        Service.objects.filter(pk=service_id).update(
            rating_sum=F("rating_sum") + stars, rating_count=F("rating_count") + reviews
        )
