"""The rules for calendars, time off and services."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import RestrictedError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from psycopg.errors import ForeignKeyViolation

from accounts.extensions import ON_NEW_PROVIDER
from accounts.models import User
from bookit import money
from bookit.database.citus.nodes import is_distributed
from bookit.database.metadata import Changes, save_changes, stored
from bookit.database.references import delete_unreferenced
from bookit.database.retries import retried
from bookit.errors import Conflict, Forbidden, Invalid
from catalog import turns
from catalog.extensions import AFFECTED, Affected
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.opening import Period

# Ten years. Longer time off must be a typing error.
LONGEST_TIME_OFF = timedelta(days=3653)

CALENDAR_IN_USE = gettext_lazy("This calendar has services. Delete them first.")
NO_NEW_CALENDAR = gettext_lazy(
    "You cannot create calendars. Choose an existing calendar for the service."
)
SERVICE_IN_USE = gettext_lazy(
    "This service has bookings, slots or reviews. Deactivate it instead of deleting it."
)


class ServiceInUse(Conflict):
    """This is in use: the service has bookings, slots or reviews, or the calendar has services."""

    code = "service_in_use"


@retried
def create_calendar(
    *,
    actor: User,
    at: datetime,
    opening_hours: list[dict[str, int]] | None = None,
    metadata: Changes | None = None,
    **fields: Any,
) -> Calendar:
    """Create a calendar.

    Providers create their own calendars. Admins and permitted staff create calendars for any
    provider or for none.

    Raises:
        Invalid: the provider is not an active provider or admin.
        Forbidden: the actor may not create calendars for this provider.
    """
    if not actor.may("catalog.add_calendar"):
        fields.setdefault("provider_id", actor.pk)
    _check_provider(actor, "catalog.add_calendar", fields)
    with transaction.atomic():
        calendar = Calendar.objects.create(
            created_at=at, updated_at=at, metadata=stored(metadata), **fields
        )
        set_opening_hours(calendar=calendar, spans=opening_hours or [])
    return calendar


@retried
def update_calendar(
    *, calendar_id: UUID, actor: User, changes: dict[str, Any], at: datetime
) -> tuple[Calendar, Affected]:
    """Change a calendar. `opening_hours` replaces all existing opening hours.

    Bookings stay as they are. If the opening hours or the time zone are changed, the bookings that
    are now outside the open times are also returned.

    Raises:
        Calendar.DoesNotExist: the calendar does not exist.
        Invalid: the provider is not an active provider or admin.
        Forbidden: the actor does not manage the calendar, or would not after the change.
    """
    changes = dict(changes)
    hours = changes.pop("opening_hours", None)
    with transaction.atomic():
        calendar = lock_calendar(calendar_id=calendar_id)
        check_owner(calendar, actor, "catalog.change_calendar")
        if "provider_id" in changes and changes["provider_id"] != calendar.provider_id:
            _check_provider(actor, "catalog.change_calendar", changes)
        save_changes(calendar, changes)
        if hours is not None:
            set_opening_hours(calendar=calendar, spans=hours)
        if hours is None and "timezone" not in changes:
            return calendar, Affected()
        return calendar, affected_bookings(calendar=calendar, at=at)


@ON_NEW_PROVIDER.add("calendar")
def ensure_calendar(*, provider: User, at: datetime) -> None:
    """Create a calendar for a provider who has none, with the provider's name and time zone."""
    if not Calendar.objects.filter(provider=provider).exists():
        Calendar.objects.create(
            provider=provider,
            name=provider.name,
            timezone=provider.timezone,
            created_at=at,
            updated_at=at,
        )


def set_opening_hours(*, calendar: Calendar, spans: list[dict[str, int]]) -> None:
    """Replace all opening hours of a calendar, because spans changed one by one could overlap."""
    calendar.hours.all().delete()
    hours = (OpeningHours(calendar=calendar, **span) for span in spans)
    # Citus would send several rows with COPY, and it cannot run triggers of the table meanwhile.
    OpeningHours.objects.bulk_create(hours, batch_size=1 if is_distributed() else None)


@retried
def delete_calendar(*, calendar_id: UUID, actor: User) -> None:
    """Delete a calendar that has no services.

    Raises:
        Calendar.DoesNotExist: the calendar does not exist.
        Forbidden: the actor does not manage the calendar.
        ServiceInUse: the calendar has services.
    """
    with transaction.atomic():
        calendar = lock_calendar(calendar_id=calendar_id)
        check_owner(calendar, actor, "catalog.delete_calendar")
        try:
            delete_unreferenced(calendar)
        except RestrictedError:
            raise ServiceInUse(str(CALENDAR_IN_USE)) from None


@retried
def create_time_off(
    *,
    calendar_id: UUID,
    actor: User,
    start_time: datetime,
    end_time: datetime,
    at: datetime,
    reason: str = "",
) -> tuple[TimeOff, Affected]:
    """Close a calendar for a period. Bookings in that period stay as they are and are returned.

    Raises:
        Calendar.DoesNotExist: the calendar does not exist.
        Invalid: the period is empty, or longer than `LONGEST_TIME_OFF`.
        Forbidden: the actor does not manage the calendar.
    """
    with transaction.atomic():
        calendar = lock_calendar(calendar_id=calendar_id)
        check_owner(calendar, actor, "catalog.change_calendar")
        check_time_off(start_time, end_time)
        time_off = TimeOff.objects.create(
            calendar=calendar,
            start_time=start_time,
            end_time=end_time,
            reason=reason,
            created_at=at,
        )
        period = (start_time, end_time)
        return time_off, affected_bookings(calendar=calendar, period=period, at=at)


def check_time_off(start_time: datetime, end_time: datetime) -> None:
    """Check that a calendar can be closed for a period.

    Raises:
        Invalid: the period is empty, or longer than `LONGEST_TIME_OFF`.
    """
    if end_time <= start_time:
        raise Invalid.of("end_time", _("The end must be after the start."))
    if end_time - start_time > LONGEST_TIME_OFF:
        raise Invalid.of("end_time", _("Time off can last at most 10 years."))


@retried
def delete_time_off(*, calendar_id: UUID, time_off_id: UUID, actor: User) -> None:
    """Delete time off, so that the opening hours apply again in that period.

    Raises:
        Calendar.DoesNotExist: the calendar does not exist.
        TimeOff.DoesNotExist: the calendar does not have this time off.
        Forbidden: the actor does not manage the calendar.
    """
    with transaction.atomic():
        calendar = lock_calendar(calendar_id=calendar_id)
        check_owner(calendar, actor, "catalog.change_calendar")
        calendar.time_off.get(pk=time_off_id).delete()


def affected_bookings(
    *, calendar: Calendar, at: datetime, period: Period | None = None
) -> Affected:
    """Return the bookings that have not ended and are outside a calendar's open times.

    Args:
        period: the period of new time off. If given, return the bookings that overlap it instead.
    """
    # At most one app has bookings, so at most one function has been added.
    found = [find(calendar=calendar, period=period, at=at) for find in AFFECTED.values()]
    return found[0] if found else Affected()


@retried
def create_service(
    *,
    actor: User,
    at: datetime,
    calendar_id: UUID | None = None,
    metadata: Changes | None = None,
    **fields: Any,
) -> Service:
    """Create a service. Without `calendar_id`, the service gets a calendar of its own.

    Raises:
        Invalid: the calendar does not exist, or the price has more decimals than its currency.
        Forbidden: the actor does not manage the calendar, or may not create one.
    """
    service = Service(created_at=at, updated_at=at, metadata=stored(metadata), **fields)
    check_price(service.price, service.currency)
    with transaction.atomic():
        if calendar_id is None:
            if not actor.may("catalog.add_calendar", actor.pk):
                raise Forbidden(str(NO_NEW_CALENDAR))
            service.calendar = create_calendar(
                actor=actor, at=at, name=service.title, timezone=actor.timezone
            )
        else:
            service.calendar = _calendar_for(actor, "catalog.add_service", calendar_id)
        service.save(force_insert=True)
    return service


def check_price(price: Decimal, currency: str, *, field: str = "price") -> None:
    """Check that a price can be paid in a currency.

    Args:
        field: the field that the error names.

    Raises:
        Invalid: the price has more decimals than the currency.
    """
    if not money.fits(Decimal(price), currency):
        most = money.decimals(currency)
        text = ngettext(
            "A price in %(currency)s has at most %(most)d decimal.",
            "A price in %(currency)s has at most %(most)d decimals.",
            most,
        )
        if not most:
            text = _("A price in %(currency)s has no decimals.")
        raise Invalid.of(field, text % {"currency": currency, "most": most})


@retried
def update_service(*, service_id: UUID, actor: User, changes: dict[str, Any]) -> Service:
    """Change a service. Existing bookings keep their prices, buffers and seats.

    Raises:
        Service.DoesNotExist: the service does not exist.
        Invalid: the calendar does not exist, or the price has more decimals than its currency.
        Forbidden: the actor does not manage the service's calendar, or would not after the change.
        ServiceInUse: the service has bookings, slots or reviews, so it cannot move to another
            calendar.
    """
    changes = dict(changes)
    with transaction.atomic():
        # The calendar is not joined. If the service moved while this statement waits for the lock,
        # PostgreSQL would find no row, because the joined calendar would be the former one.
        service = Service.objects.select_for_update(no_key=True).get(pk=service_id)
        check_owner(service.calendar, actor, "catalog.change_service")
        if "calendar_id" in changes:
            changes["calendar"] = _calendar_for(
                actor, "catalog.change_service", changes.pop("calendar_id")
            )
        if "price" in changes or "currency" in changes:
            field = "price" if "price" in changes else "currency"
            check_price(
                changes.get("price", service.price),
                changes.get("currency", service.currency),
                field=field,
            )
        duration = changes.get("duration_minutes", service.duration_minutes)
        if service.step_minutes is None and changes.get("step_minutes") == duration:
            # Responses show the duration as the step of a service that has none. A client that
            # sends a response back sets no step: the step still follows the duration.
            del changes["step_minutes"]
        try:
            save_changes(service, changes)
        except IntegrityError as error:
            # The foreign keys of bookings, slots and reviews cover the service and its calendar
            # together, so they prevent the move.
            if "calendar" in changes and isinstance(error.__cause__, ForeignKeyViolation):
                raise ServiceInUse(
                    _(
                        "This service has bookings, slots or reviews, which cannot move to another "
                        "calendar."
                    )
                ) from None
            raise
    return service


@retried
def delete_service(*, service_id: UUID, actor: User) -> None:
    """Delete a service that has no bookings, slots or reviews.

    Raises:
        Service.DoesNotExist: the service does not exist.
        Forbidden: the actor does not manage the service's calendar.
        ServiceInUse: the service has bookings, slots or reviews.
    """
    with transaction.atomic():
        # This lock, FOR UPDATE, waits for transactions that are creating a booking of this service.
        # The calendar is not joined, as in `update_service`.
        service = Service.objects.select_for_update().get(pk=service_id)
        check_owner(service.calendar, actor, "catalog.delete_service")
        try:
            delete_unreferenced(service)
        except IntegrityError as error:
            # If the database is distributed, the lock does not wait for other servers. A foreign
            # key then refuses the deletion of a service that has just been booked.
            if isinstance(error, RestrictedError) or isinstance(
                error.__cause__, ForeignKeyViolation
            ):
                raise ServiceInUse(str(SERVICE_IN_USE)) from None
            raise


def lock_calendar(*, calendar_id: UUID) -> Calendar:
    """Lock and return a calendar that is about to change.

    The lock waits until earlier bookings are committed, and later bookings wait for the lock (see
    `catalog.turns`). The lock is FOR UPDATE, which a change of the version requires (see
    `bookings.availability.terms`).

    Raises:
        Calendar.DoesNotExist: the calendar does not exist.
    """
    return Calendar.objects.select_for_update().filter(turns.alone(calendar_id)).get(pk=calendar_id)


def check_owner(calendar: Calendar, actor: User, permission: str) -> None:
    """Check that a user is the calendar's provider or an admin, or has the permission.

    Raises:
        Forbidden: the user is somebody else.
    """
    if not actor.may(permission, calendar.provider_id):
        raise Forbidden(_("You do not manage this calendar."))


def _calendar_for(actor: User, permission: str, calendar_id: UUID) -> Calendar:
    # The lock prevents the calendar from being deleted before the service is stored. The turn is
    # taken alone, because the trigger on the terms of services may take it alone afterwards. Two
    # transactions that shared the turn until then would deadlock.
    found = Calendar.objects.select_for_update(no_key=True).filter(turns.alone(calendar_id))
    calendar = found.filter(pk=calendar_id).first()
    if calendar is None:
        raise Invalid.of("calendar_id", _("There is no calendar with this id."))
    check_owner(calendar, actor, permission)
    return calendar


def _check_provider(actor: User, permission: str, fields: dict[str, Any]) -> None:
    provider_id = fields.get("provider_id")
    if "provider_id" in fields and not actor.may(permission, provider_id):
        raise Forbidden(_("Providers can set provider_id only to their own id."))
    if provider_id is None or (provider_id == actor.pk and actor.is_keeper):
        return
    check_provider(provider_id)


def check_provider(provider_id: UUID) -> None:
    """Check that a user can be the provider of a calendar.

    Raises:
        Invalid: there is no active provider or admin with this id.
    """
    if not User.objects.all().keepers().filter(pk=provider_id).exists():
        raise Invalid.of("provider_id", _("There is no active provider with this id."))
