"""`manage.py prune`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from accounts import services


class Command(BaseCommand):
    """Deletes what has expired; the worker does it every night."""

    help = "Delete expired sessions and tokens, as the worker does every night."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it once."""
        self.stdout.write(f"{services.prune_tokens(at=timezone.now())} sessions deleted.")
