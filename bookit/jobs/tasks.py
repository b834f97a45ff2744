"""The upkeep of the queue itself."""

from django.utils import timezone
from procrastinate.contrib.django import app

from bookit.jobs import queues as jobs


@app.periodic(cron="* * * * *")
@app.task(name="bookit.retry_stalled_jobs", queueing_lock="bookit.retry_stalled_jobs")
async def retry_stalled_jobs(timestamp: int) -> None:
    """Let other workers do the jobs of those that died, every minute."""
    await jobs.retry_stalled_jobs(at=timezone.now())


@app.periodic(cron="37 3 * * *")
@app.task(name="bookit.prune_jobs", queueing_lock="bookit.prune_jobs")
def prune_jobs(timestamp: int) -> None:
    """Delete old jobs that failed, every night."""
    jobs.prune_jobs(at=timezone.now())
