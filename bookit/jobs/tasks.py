"""Periodic jobs that maintain the job queues themselves."""

from django.utils import timezone
from procrastinate.contrib.django import app

from bookit.jobs import queues as jobs


@app.periodic(cron="* * * * *")
@app.task(name="bookit.retry_stalled_jobs", queueing_lock="bookit.retry_stalled_jobs")
async def retry_stalled_jobs(timestamp: int) -> None:
    """Put the jobs of dead workers back in their queues, every minute."""
    await jobs.retry_stalled_jobs(at=timezone.now())


@app.periodic(cron="37 3 * * *")
@app.task(name="bookit.prune_jobs", queueing_lock="bookit.prune_jobs")
def prune_jobs(timestamp: int) -> None:
    """Delete jobs that ended long ago, every night."""
    jobs.prune_jobs(at=timezone.now())
