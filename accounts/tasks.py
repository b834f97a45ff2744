"""Periodic jobs of accounts."""

from django.utils import timezone
from procrastinate.contrib.django import app

from accounts import services
from accounts.links import tasks  # noqa: F401 - procrastinate looks only in this module


@app.periodic(cron="17 3 * * *")
@app.task(queueing_lock="prune_tokens")
def prune_tokens(timestamp: int) -> None:
    """Delete expired sessions and tokens, every night."""
    services.prune_tokens(at=timezone.now())
