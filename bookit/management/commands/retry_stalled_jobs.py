"""`manage.py retry_stalled_jobs`."""

from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand
from django.utils import timezone

from bookit.jobs import queues as jobs


class Command(BaseCommand):
    """Puts the jobs of dead workers back in their queues, as a worker does every minute."""

    help = "Put the jobs of dead workers back in their queues, as a worker does every minute."

    def handle(self, *args: Any, **options: Any) -> None:
        """Put the jobs back once, and print how many were put back."""
        count = async_to_sync(jobs.retry_stalled_jobs)(at=timezone.now())
        self.stdout.write(f"Jobs put back in their queues: {count}.")
