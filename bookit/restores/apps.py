"""The app `bookit.restores`."""

from typing import Any

from django.apps import AppConfig
from django.db import DEFAULT_DB_ALIAS
from django.db.models.signals import post_migrate


class RestoresConfig(AppConfig):
    """Checks after each `migrate` whether the database has moved to another server."""

    name = "bookit.restores"

    def ready(self) -> None:
        """Check the server after each `migrate`."""
        post_migrate.connect(_notice_new_server, sender=self)


def _notice_new_server(using: str, **kwargs: Any) -> None:
    from bookit.restores import positions

    if using == DEFAULT_DB_ALIAS and positions.is_migrated():
        positions.notice_new_server()
