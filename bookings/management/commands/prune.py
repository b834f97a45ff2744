"""`manage.py prune`."""

from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand
from django.utils import timezone

from accounts.services import prune_tokens
from bookit.jobs import prune_jobs


class Command(BaseCommand):
    """Deletes what nobody needs any more; the worker does it every night."""

    help = "Delete expired sessions and tokens, and old failed jobs, as the worker does each night."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it once."""
        self.stdout.write(f"{prune_tokens(at=timezone.now())} sessions deleted.")
        async_to_sync(prune_jobs)()
