"""The reviews app."""

from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    """Configuration of the reviews app."""

    name = "reviews"

    def ready(self) -> None:
        """Register the function that returns the data of review events, and the permissions."""
        from reviews import payloads, permissions  # noqa: F401
