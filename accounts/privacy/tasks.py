"""The job that completes the erasure of an account."""

from uuid import UUID

from django.utils import timezone
from procrastinate.contrib.django import app

from accounts.privacy import services as privacy
from bookit.jobs.queues import PATIENT


@app.task(name=privacy.ERASE_AGAIN, retry=PATIENT)
def erase_again(user_id: str) -> None:
    """Erase what was stored about a user while their account was being erased."""
    privacy.erase_again(user_id=UUID(user_id), at=timezone.now())
