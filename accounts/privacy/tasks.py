"""The job that completes the erasure of an account."""

from uuid import UUID

from django.utils import timezone
from procrastinate.contrib.django import app

from accounts.privacy import services as privacy
from bookit.jobs.queues import PATIENT


@app.task(name=privacy.ERASE_AGAIN, retry=PATIENT)
def erase_again(user_id: str) -> None:
    """Erase what has been stored about a user since their account was erased."""
    privacy.erase_again(user_id=UUID(user_id), at=timezone.now())
