"""Who may see and leave a place in the queue."""

from typing import Any

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.permissions import signed_in
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry


class HasPlace(IsAuthenticated):
    """Those whose business a place in a queue is: its user, the slot's provider and admins."""

    def has_object_permission(self, request: Request, view: Any, obj: WaitlistEntry) -> bool:
        """Return True.

        Raises:
            Forbidden: it is somebody else's.
        """
        waitlist.check_place(obj, signed_in(request))
        return True
