"""The catalog app."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class CatalogConfig(AppConfig):
    """Configuration of the catalog app. Its rooms are packages, each with one subject."""

    name = "catalog"
    verbose_name = _("Calendars and services")

    def import_models(self) -> None:
        """Import the models of the rooms too; Django looks only in `catalog/models.py`."""
        super().import_models()
        from catalog.categories import models  # noqa: F401 - the import registers them
        from catalog.providers import models as _  # noqa: F401 - the import registers them

    def ready(self) -> None:
        """Extend accounts. In a distributed database (Citus), distribute what `migrate` adds."""
        from bookit.database.citus.conversion import keep_distributed
        from catalog import permissions, privacy, services  # noqa: F401 - the imports register them

        # `migrate` sends this signal for each app, after all migrations. One call is enough.
        post_migrate.connect(keep_distributed, sender=self)
