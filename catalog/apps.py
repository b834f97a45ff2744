"""The catalog app."""

from django.apps import AppConfig


class CatalogConfig(AppConfig):
    """Configuration of the catalog app."""

    name = "catalog"

    def ready(self) -> None:
        """Add the calendar that everybody gets who becomes a provider."""
        from catalog import services  # noqa: F401
