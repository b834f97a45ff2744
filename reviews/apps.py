"""The reviews app."""

from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    """Configuration of the reviews app."""

    name = "reviews"

    def ready(self) -> None:
        """Register the functions, permissions and reports with which reviews extend other apps."""
        # The imports register them.
        from reviews import payloads, permissions, privacy, reports  # noqa: F401
