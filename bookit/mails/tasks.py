"""The job that deletes old counts of emails."""

from django.utils import timezone
from procrastinate.contrib.django import app

from bookit.mails import limits as mail_limits


@app.periodic(cron="37 3 * * *")
@app.task(name="bookit.prune_mail_counts", queueing_lock="bookit.prune_mail_counts")
def prune_mail_counts(timestamp: int) -> None:
    """Delete old counts of emails. Runs every night."""
    mail_limits.prune_mail_counts(at=timezone.now())
