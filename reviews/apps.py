"""The reviews app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ReviewsConfig(AppConfig):
    """Configuration of the reviews app."""

    name = "reviews"
    verbose_name = _("Reviews")

    def ready(self) -> None:
        """Register the functions, permissions and reports with which reviews extend other apps."""
        # The imports register them.
        from reviews import payloads, permissions, privacy, reports  # noqa: F401
