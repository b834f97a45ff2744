"""The app `bookit`, which contains everything that no domain owns."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate, pre_migrate

from bookit.deadlines import STATEMENT_LIMIT


class BookItConfig(AppConfig):
    """Configures `bookit`, which has commands and templates but no models."""

    name = "bookit"
    verbose_name = "BookIt"

    def ready(self) -> None:
        """Let statements take any time while migrations run."""
        pre_migrate.connect(_lift_time_limit)
        post_migrate.connect(_restore_time_limit)


def _lift_time_limit(using: str, **kwargs: Any) -> None:
    # STATEMENT_TIMEOUT_MS is meant for requests. Indexing a large table takes longer.
    with connections[using].cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        connections[using].connection.patience = None


def _restore_time_limit(using: str, **kwargs: Any) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute("RESET statement_timeout")
        connections[using].connection.patience = STATEMENT_LIMIT
