"""The job that deletes old responses."""

from django.utils import timezone
from procrastinate.contrib.django import app

from bookit.idempotency import services


@app.periodic(cron="23 * * * *")
@app.task(name="bookit.prune_kept_responses", queueing_lock="bookit.prune_kept_responses")
def prune_kept_responses(timestamp: int) -> None:
    """Every hour, delete the responses that are no longer replayed."""
    services.prune(at=timezone.now())
