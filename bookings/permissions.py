"""Permissions for bookings, slots, feeds, waitlists and webhooks."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.extensions import PERMISSIONS, Permission
from accounts.permissions import signed_in

for name, permission in {
    "bookings.view_booking": Permission(_("see all bookings and their history"), own="user"),
    "bookings.add_booking": Permission(_("book for other users"), own="user"),
    "bookings.change_booking": Permission(
        _("change all bookings in every way that their providers can"), own="user"
    ),
    "bookings.delete_booking": Permission(_("delete all bookings"), own="user"),
    "bookings.view_waitlistentry": Permission(_("see all waitlists"), own="user"),
    "bookings.add_waitlistentry": Permission(_("join a waitlist"), own="user", in_roles=False),
    "bookings.delete_waitlistentry": Permission(_("take users off waitlists"), own="user"),
    "bookings.view_slot": Permission(_("see slots in the admin site"), own="provider"),
    "bookings.add_slot": Permission(_("publish slots"), own="provider"),
    "bookings.change_slot": Permission(
        _("change and cancel slots, with their bookings"), own="provider"
    ),
    "bookings.delete_slot": Permission(_("delete slots"), own="provider"),
    # API keys cannot read the URL of a feed, because the URL would still work after the key was
    # revoked.
    "bookings.view_feed": Permission(
        _("subscribe to all calendars"), own="provider", in_keys=False
    ),
    "bookings.change_feed": Permission(
        _("renew the addresses of feeds"), own="provider", in_keys=False
    ),
    # `/events` and webhooks report the events of all calendars, so only admins have the permissions
    # below. A webhook receives no events while its owner is not an admin.
    "bookings.view_bookingevent": Permission(_("poll for events"), in_roles=False),
    "bookings.view_webhook": Permission(_("see webhooks and their deliveries"), in_roles=False),
    "bookings.add_webhook": Permission(_("create webhooks"), in_roles=False),
    "bookings.change_webhook": Permission(_("change and test webhooks"), in_roles=False),
    "bookings.delete_webhook": Permission(_("delete webhooks"), in_roles=False),
}.items():
    PERMISSIONS.add(name)(permission)


class ListsBookings(IsAuthenticated):
    """Every user may list bookings; only users who may see all of them may filter by `user_id`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the user may list bookings with the filters of the request."""
        return super().has_permission(request, view) and (
            "user_id" not in request.query_params or signed_in(request).may("bookings.view_booking")
        )
