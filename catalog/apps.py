"""The catalog app."""

from django.apps import AppConfig


class CatalogConfig(AppConfig):
    """Configuration of the catalog app."""

    name = "catalog"

    def ready(self) -> None:
        """Register the function that gives new providers a calendar, and the permissions."""
        from catalog import permissions, services  # noqa: F401 - the imports register them
