"""Permissions on calendars, their services and their time off."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.extensions import PERMISSIONS, Permission
from accounts.permissions import signed_in
from catalog.models import Calendar
from catalog.services import check_owner

for name, words in {
    "catalog.view_calendar": _("see time off; see calendars in the admin site"),
    "catalog.add_calendar": _("create calendars for any provider"),
    "catalog.change_calendar": _("change calendars, opening hours and time off"),
    "catalog.delete_calendar": _("delete calendars"),
    "catalog.view_service": _("see why times are refused; see services in the admin site"),
    "catalog.add_service": _("create services"),
    "catalog.change_service": _("change services"),
    "catalog.delete_service": _("delete services"),
}.items():
    PERMISSIONS.add(name)(Permission(words, own="provider"))


class KeepsCalendar(BasePermission):
    """Allows the provider of a calendar, admins and permitted staff.

    The object of the request is the calendar itself, or an object that belongs to it.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user is a provider or admin, or has the permission the view needs."""
        return request.user.is_authenticated and (
            request.user.is_keeper or request.user.may(view.needed_permission)
        )

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        """Return True.

        Raises:
            Forbidden: the user does not manage the calendar.
        """
        calendar = obj if isinstance(obj, Calendar) else obj.calendar
        check_owner(calendar, signed_in(request), view.needed_permission)
        return True
