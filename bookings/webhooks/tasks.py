"""Jobs that deliver webhooks."""

import logging
from uuid import UUID

from django.db import Error
from django.utils import timezone
from procrastinate.contrib.django import app

from bookings.webhooks import deliveries
from bookings.webhooks import services as webhooks
from bookit.errors import is_database_unavailable
from bookit.jobs import queues as jobs

logger = logging.getLogger(__name__)


# procrastinate cannot retry a job of a webhook while the next job of the webhook waits, because
# both have the same queueing lock. So this task has no retries. If a job fails, `wake_webhooks`
# enqueues another job.
@app.task(name="bookings.deliver", queue=jobs.WEBHOOKS)
async def deliver(webhook_id: str) -> None:
    """Send the messages of a webhook that are due."""
    try:
        await deliveries.deliver(webhook_id=UUID(webhook_id), now=timezone.now)
    except Error as error:
        if not is_database_unavailable(error):
            raise
        # For example, PostgreSQL is unreachable or has found a deadlock. The job does not fail,
        # because failed jobs are kept for operators to look at. `wake_webhooks` enqueues another.
        logger.warning("deliveries to a webhook were interrupted: %s", type(error).__name__)


@app.periodic(cron="* * * * *")
@app.task(name="bookings.wake_webhooks", queueing_lock="bookings.wake_webhooks")
def wake_webhooks(timestamp: int) -> None:
    """Wake webhooks whose job failed, was interrupted or was lost. Runs every minute."""
    webhooks.wake_forgotten()


@app.periodic(cron="27 3 * * *")
@app.task(name="bookings.prune_deliveries", queueing_lock="bookings.prune_deliveries")
def prune_deliveries(timestamp: int) -> None:
    """Delete old deliveries. Runs every night."""
    webhooks.prune_deliveries(at=timezone.now())
