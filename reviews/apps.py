"""The reviews app."""

from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    """Configuration of the reviews app."""

    name = "reviews"

    def ready(self) -> None:
        """Register the functions and permissions with which reviews extend the apps below."""
        from reviews import payloads, permissions, privacy  # noqa: F401
