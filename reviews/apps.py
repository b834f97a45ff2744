"""The reviews app."""

from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    """Configuration of the reviews app."""

    name = "reviews"

    def ready(self) -> None:
        """Add the data of events that are about a review."""
        from reviews import payloads  # noqa: F401
