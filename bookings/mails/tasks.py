"""Jobs that send emails."""

from typing import Any
from uuid import UUID

from django.utils import timezone
from procrastinate.contrib.django import app

from bookings.mails import services as mails
from bookings.mails.composition import Mail
from bookit.jobs import queues as jobs
from bookit.jobs.queues import PATIENT


@app.task(name=mails.SEND, queue=jobs.MAILS, retry=PATIENT)
def send_mail(calendar_id: str, event_id: str, audience: str, copy: str = "") -> None:
    """Send the email about an event to the attendee or the provider, or send a copy of it.

    `copy` is the time at which somebody asked for the copy. It is empty for the first email.
    """
    mails.send(
        calendar_id=UUID(calendar_id),
        event_id=UUID(event_id),
        audience=audience,
        at=timezone.now(),
        copy=copy,
    )


@app.task(name=mails.COMPOSED, queue=jobs.MAILS, retry=PATIENT)
def send_composed_mail(mail: dict[str, Any], user_id: str) -> None:
    """Send an email that was composed earlier: see `bookings.mails.services.COMPOSED`.

    `user_id` is the user of the booking, or the user who was waiting. `bookings.privacy` finds the
    jobs of a user by this id.
    """
    mails.send_composed(mail=Mail(**mail), user_id=user_id, at=timezone.now())
