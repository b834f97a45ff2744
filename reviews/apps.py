"""The reviews app."""

from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    """Configuration of the reviews app."""

    name = "reviews"

    def ready(self) -> None:
        """Tell bookings how an event that is about a review is shown."""
        from bookings.models import BookingEvent
        from bookings.payloads import SHOWN
        from reviews.payloads import reviews

        SHOWN[BookingEvent.Type.REVIEWED] = reviews
