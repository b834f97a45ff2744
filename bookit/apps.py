"""The app `bookit`, which contains everything that no domain owns."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate

from bookit.deadlines import lift_time_limit, restore_time_limit


class BookItConfig(AppConfig):
    """Configures `bookit`, which has commands and templates. Its models are in apps inside it."""

    name = "bookit"
    verbose_name = "BookIt"

    def ready(self) -> None:
        """Let statements take any time while migrations run."""
        pre_migrate.connect(lift_time_limit)
        post_migrate.connect(restore_time_limit)
