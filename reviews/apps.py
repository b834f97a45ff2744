"""The reviews app."""

from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    """Configuration of the reviews app."""

    name = "reviews"

    def ready(self) -> None:
        """Register the functions and permissions with which reviews extend other apps."""
        from reviews import payloads, permissions, privacy  # noqa: F401 - the imports register them
