"""Permissions on calendars, their services and their time off."""

from typing import Any

from rest_framework.request import Request

from accounts.permissions import IsProviderOrAdmin, signed_in
from catalog.models import Calendar
from catalog.services import check_owner


class KeepsCalendar(IsProviderOrAdmin):
    """Allows admins, and the provider of the calendar that the object is or belongs to."""

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        """Return True.

        Raises:
            Forbidden: the calendar is another user's.
        """
        check_owner(obj if isinstance(obj, Calendar) else obj.calendar, signed_in(request))
        return True
