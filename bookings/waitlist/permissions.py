"""Permissions for waitlist entries."""

from typing import Any

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.permissions import signed_in
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry


class AccessesWaitlistEntry(IsAuthenticated):
    """Allows access to the user of an entry, the slot's provider, admins and permitted staff."""

    def has_object_permission(self, request: Request, view: Any, obj: WaitlistEntry) -> bool:
        """Return True if the user may access the entry.

        Raises:
            Forbidden: the user may not access the entry.
        """
        waitlist.check_access(obj, signed_in(request), view.needed_permission)
        return True
