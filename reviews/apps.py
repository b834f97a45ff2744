"""The reviews app."""

from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    """Configuration of the reviews app."""

    name = "reviews"

    def ready(self) -> None:
        """Register the functions with which reviews extend the apps below."""
        from reviews import payloads, privacy  # noqa: F401
