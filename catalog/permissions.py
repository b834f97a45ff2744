"""Who may do what with calendars and what is on them."""

from typing import Any

from rest_framework.request import Request

from accounts.permissions import IsProviderOrAdmin, signed_in
from catalog.models import Calendar
from catalog.services import check_owner


class KeepsCalendar(IsProviderOrAdmin):
    """Those who keep a calendar, or the one that something is on: its provider and admins."""

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        """Return True.

        Raises:
            Forbidden: the calendar is somebody else's.
        """
        check_owner(obj if isinstance(obj, Calendar) else obj.calendar, signed_in(request))
        return True
