"""Periodic jobs of accounts."""

from django.utils import timezone
from procrastinate.contrib.django import app

from accounts import services

# procrastinate looks for the tasks of an app only in this module.
from accounts.links import tasks as links  # noqa: F401 - the import registers its tasks
from accounts.privacy import tasks as privacy  # noqa: F401 - the import registers its tasks


@app.periodic(cron="17 3 * * *")
@app.task(queueing_lock="prune_tokens")
def prune_tokens(timestamp: int) -> None:
    """Delete expired sessions and tokens, every night."""
    services.prune_tokens(at=timezone.now())
