"""The export and the erasure of what the catalog stores about a provider."""

from contextlib import suppress
from datetime import datetime
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q

from accounts.extensions import ERASERS, EXPORTERS
from accounts.models import User
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.providers.models import Profile
from catalog.services import lock_calendar

# The new name of a calendar whose name contained the name of its erased provider.
NAMELESS = "Calendar"


@EXPORTERS.add("calendars")
def _export_calendars(user: User) -> list[Any]:
    calendars = Calendar.objects.filter(provider=user).order_by("id")
    return [*calendars.values("id", "name", "timezone", "metadata", "created_at")]


@EXPORTERS.add("opening_hours")
def _export_hours(user: User) -> list[Any]:
    hours = OpeningHours.objects.filter(calendar__provider=user).order_by("id")
    return [*hours.values("calendar_id", "weekday", "opens", "closes")]


@EXPORTERS.add("time_off")
def _export_time_off(user: User) -> list[Any]:
    time_off = TimeOff.objects.filter(calendar__provider=user).order_by("id")
    return [*time_off.values("calendar_id", "start_time", "end_time", "reason")]


@EXPORTERS.add("services")
def _export_services(user: User) -> list[Any]:
    services = Service.objects.filter(calendar__provider=user).order_by("id")
    return [*services.values("id", "calendar_id", "title", "description", "metadata", "created_at")]


@EXPORTERS.add("profile")
def _export_profile(user: User) -> list[Any]:
    return [*Profile.objects.filter(user=user).values("biography", "picture_url")]


@ERASERS.add("catalog")
def erase(*, user: User, actor: User, at: datetime) -> None:
    """Deactivate a provider's services, delete the profile, and remove the provider from calendars.

    Calendars whose names contain the provider's name are renamed, these names are removed from the
    log of the admin site, and reasons of time off are removed. Customers keep their bookings. An
    admin can cancel the bookings, or give the calendars another provider.
    """
    # As the order of locks requires, services are locked first, then calendars. When services
    # change, a trigger locks categories, which come last.
    services = Service.objects.filter(calendar__provider=user, is_active=True)
    locked = services.order_by("id").select_for_update(of=("self",), no_key=True)
    list(locked.values_list("pk"))
    own = Calendar.objects.filter(provider=user)
    for calendar_id in own.order_by("id").values_list("pk", flat=True):
        with suppress(Calendar.DoesNotExist):  # It has just been deleted.
            lock_calendar(calendar_id=calendar_id)
    Profile.objects.filter(user=user).delete()
    TimeOff.objects.filter(calendar__in=own).exclude(reason="").update(reason="")
    services.update(is_active=False)
    # If the account is erased again, its name is empty, and every calendar that it got meanwhile is
    # renamed.
    own.filter(name__icontains=user.name).update(name=NAMELESS)
    # The log of the admin site contains the present and former names of calendars. A calendar that
    # the provider no longer has can be found only by its name, if that was exactly the provider's.
    logged = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(Calendar))
    ids = [str(pk) for pk in own.values_list("pk", flat=True)]
    logged.filter(
        Q(object_id__in=ids, object_repr__icontains=user.name) | Q(object_repr=user.name)
    ).update(object_repr="")
    own.update(provider=None)
