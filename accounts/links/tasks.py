"""The job that sends emails about accounts."""

from uuid import UUID

from django.utils import timezone
from procrastinate.contrib.django import app

from accounts.links import services as links
from accounts.links.kinds import KINDS
from bookit.jobs import queues as jobs
from bookit.jobs.queues import PATIENT


@app.task(name=links.TASK, queue=jobs.MAILS, retry=PATIENT)
def send_mail(kind: str, email: str, user_id: str | None) -> None:
    """Send an email about an account."""
    links.send(
        kind=KINDS[kind],
        email=email,
        user_id=UUID(user_id) if user_id else None,
        at=timezone.now(),
    )
