"""The catalog app."""

from django.apps import AppConfig


class CatalogConfig(AppConfig):
    """Configuration of the catalog app."""

    name = "catalog"

    def ready(self) -> None:
        """Register the functions with which the catalog extends accounts."""
        from catalog import privacy, services  # noqa: F401 - the imports register them
