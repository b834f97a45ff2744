"""`manage.py prune`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from accounts.services import prune_tokens
from bookings.webhooks.services import prune_deliveries
from bookit.idempotency import services as idempotency
from bookit.jobs.queues import prune_jobs
from bookit.mails.limits import prune_mail_counts


class Command(BaseCommand):
    """Deletes data that is no longer needed; the worker does so regularly."""

    help = (
        "Delete expired sessions and tokens, and old deliveries, mail counts, ended jobs and "
        "responses to idempotent requests, as the worker does regularly."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command once."""
        at = timezone.now()
        self.stdout.write(
            f"{prune_tokens(at=at)} sessions, {prune_deliveries(at=at)} deliveries, "
            f"{prune_mail_counts(at=at)} mail counts, {prune_jobs(at=at)} jobs and "
            f"{idempotency.prune(at=at)} responses deleted."
        )
