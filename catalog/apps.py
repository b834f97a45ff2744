"""The catalog app."""

from datetime import datetime
from typing import Any

from django.apps import AppConfig


class CatalogConfig(AppConfig):
    """Configuration of the catalog app."""

    name = "catalog"

    def ready(self) -> None:
        """Give those who become providers a calendar."""
        from accounts.models import User
        from accounts.signals import became_provider
        from catalog import services

        def ensure_calendar(sender: Any, *, user: User, at: datetime, **signal: Any) -> None:
            services.ensure_calendar(provider=user, at=at)

        # Nothing else holds on to it.
        became_provider.connect(ensure_calendar, weak=False, dispatch_uid="ensure_calendar")
