"""Daily limits for emails about bookings and waitlists, by booking and reader, and by address."""

from uuid import UUID

from django.conf import settings

from bookit.mails.limits import Limit, hashed


def limits_of(
    *, booking_id: UUID | str, audience: str, address: str, is_verified: bool, is_last: bool
) -> list[Limit]:
    """Return the limits that an email counts towards.

    Args:
        audience: the recipient, `attendee` or `provider`.
        is_last: whether the email says that the booking was cancelled or has expired. Such an email
            may exceed the limit of the booking by one, so that recipients learn of a cancellation
            even after many moves.
    """
    return [
        Limit("booking", f"booking/{booking_id}/{audience}", settings.MAILS_PER_BOOKING + is_last),
        address_limit(address, is_verified=is_verified),
    ]


def address_limit(address: str, *, is_verified: bool) -> Limit:
    """Return the limit for all emails about bookings and waitlists to one address."""
    return Limit(
        "address",
        f"address/{hashed(address)}",
        settings.MAILS_PER_VERIFIED_ADDRESS if is_verified else settings.MAILS_PER_ADDRESS,
    )
