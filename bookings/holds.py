"""Which bookings still count: all but holds that have expired."""

from typing import Any

from django.db.models import Q


def unexpired(at: Any) -> Q:
    """Return the condition that a booking is no hold, or a hold that lasts beyond `at`."""
    return Q(hold_expires_at=None) | Q(hold_expires_at__gt=at)


def unexpired_sql(column: str) -> str:
    """Return the same in SQL, where `column` says when a hold ends, at the parameter `at`."""
    return f"({column} IS NULL OR {column} > %(at)s)"
