"""Exports and erases what is stored about a user.

Each app knows what it stores. The apps above `accounts` add functions to `EXPORTERS` and `ERASERS`
in `accounts/extensions.py`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

from django.contrib.admin.models import LogEntry
from django.db import connection, transaction
from django.db.models import Q
from django.utils.translation import gettext as _
from procrastinate.contrib.django import app
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from accounts import services
from accounts.extensions import ERASERS, EXPORTERS
from accounts.keys import services as keys
from accounts.keys.models import ApiKey
from accounts.links import services as links
from accounts.models import User
from accounts.sessions import services as sessions
from accounts.sessions.models import Session
from bookit.database.retries import retried
from bookit.errors import Forbidden, Invalid
from bookit.idempotency import services as idempotency
from bookit.idempotency.models import KeptResponse

# The job that erases an account again, and its delays. After a minute, no request that began before
# the first erasure is still in progress, except perhaps a long import. After two days, no email
# that was written before the first erasure is still waiting.
ERASE_AGAIN = "accounts.erase_again"
ERASE_DELAYS = (timedelta(minutes=1), timedelta(days=2))

# Deletes the jobs that send emails about an account, whether they are waiting or have failed. A job
# that is running is not deleted.
#
# Parameters: task text, user_id text, emails text[].
# Columns: none.
DELETE_JOBS = """
DELETE FROM procrastinate_jobs
WHERE task_name = %(task)s::text AND status <> 'doing'
  AND (args->>'user_id' = %(user_id)s::text OR args->>'email' = ANY(%(emails)s::text[]))
"""


def export(*, user: User) -> dict[str, Any]:
    """Return the personal data of a user by subject, without secrets.

    A subject with very many rows is an iterator of lists of rows, which are read from the database
    one after another.
    """
    return {name: _list_if_short(find(user)) for name, find in EXPORTERS.items()}


def _list_if_short(found: Any) -> Any:
    """Replace an iterator of one list by that list, and an empty iterator by an empty list.

    Most exports then have no iterator, so `ExportViewSet` needs no file for them.
    """
    if not isinstance(found, Iterator):
        return found
    first: list[Any] = next(found, [])
    second: list[Any] | None = next(found, None)
    return first if second is None else chain([first, second], found)


@EXPORTERS.add("user")
def _export_user(user: User) -> dict[str, Any]:
    hidden = {"password"}
    names = [field.attname for field in User._meta.concrete_fields if field.name not in hidden]
    return {**{name: getattr(user, name) for name in names}, "roles": user.roles}


@EXPORTERS.add("sessions")
def _export_sessions(user: User) -> list[Any]:
    columns = ("id", "created_at", "last_used_at", "expires_at", "revoked_at", "address", "client")
    return [*user.sessions.order_by("id").values(*columns)]


@EXPORTERS.add("emailed_links")
def _export_links(user: User) -> list[Any]:
    columns = ("purpose", "email", "created_at", "expires_at")
    return [*user.emailed_links.order_by("id").values(*columns)]


@EXPORTERS.add("api_keys")
def _export_api_keys(user: User) -> list[Any]:
    columns = ("id", "name", "prefix", "permissions", "expires_at", "last_used_at", "created_at")
    return [*ApiKey.objects.filter(user=user).order_by("id").values(*columns)]


@EXPORTERS.add("idempotency_keys")
def _export_keys(user: User) -> list[Any]:
    rows = KeptResponse.objects.filter(user=user)
    return [*rows.order_by("id").values("key", "status", "location", "created_at")]


def erase_own(*, user: User, password: str, client: sessions.Client, at: datetime) -> None:
    """Erase the account of the signed-in user; see `_erase`.

    Raises:
        Invalid: the password is wrong.
        LastAdmin: the user is the last active admin.
        LimitExceeded: too many wrong passwords were tried.
    """
    services.check_own_password(user=user, field="password", password=password, client=client)
    _erase(user.pk, actor=user, at=at, checked=user.password)


def erase_user(*, user_id: UUID, actor: User, at: datetime) -> None:
    """Erase an account on behalf of an admin; see `_erase`.

    Raises:
        User.DoesNotExist: no account has this id.
        Forbidden: the actor is not an admin.
        LastAdmin: the user is the last active admin.
    """
    if not actor.is_admin:
        raise Forbidden
    _erase(user_id, actor=actor, at=at)


@retried
@transaction.atomic
def _erase(user_id: UUID, *, actor: User, at: datetime, checked: str | None = None) -> None:
    """Erase the personal data that is stored about a user, and close the account for good.

    Bookings and reviews refer to the row of the user, so the row stays, without personal data. The
    texts of reviews stay, too. A new account can use the email address.

    Args:
        checked: the hash of the password that was checked, if any. The password may have been
            changed during the slow hashing.
    """
    user, is_last_admin = services.lock_user(user_id=user_id)
    if checked not in (None, user.password):
        raise Invalid.of("password", _("This is not your current password."))
    if is_last_admin:
        raise services.LastAdmin
    for erase in ERASERS.values():
        erase(user=user, actor=actor, at=at)
    _erase_traces(user)
    _empty(user)
    user.role, user.is_active, user.deleted_at = User.Role.USER, False, at
    user.set_unusable_password()
    user.save()
    # A request that began before this transaction can still store something, such as a booking or a
    # new name.
    for delay in ERASE_DELAYS:
        app.configure_task(ERASE_AGAIN, schedule_at=at + delay).defer(user_id=str(user.pk))


@retried
@transaction.atomic
def erase_again(*, user_id: UUID, at: datetime) -> None:
    """Erase what has been stored about a user since their account was erased."""
    deleted = User.objects.exclude(deleted_at=None).filter(pk=user_id)
    user = deleted.select_for_update(no_key=True).first()
    if user is None:
        return
    _empty(user)
    user.save()
    for erase in ERASERS.values():
        erase(user=user, actor=user, at=at)
    _erase_traces(user)


def _empty(user: User) -> None:
    """Remove the personal data from the row of a user. The caller saves the row."""
    user.name, user.phone, user.new_email, user.verified_email = "", "", "", ""
    # RFC 2606 reserves the domain `.invalid`, so this address never receives email. It is random,
    # because ids are public: another account could already have an address that contains the id.
    user.email = f"{uuid4()}@deleted.invalid"
    user.timezone, user.language, user.last_login = "UTC", "en", None
    user.metadata = {}


def _erase_traces(user: User) -> None:
    """Erase what `accounts` and the layers below it store about a user outside the user's row."""
    Session.objects.filter(user=user).delete()
    OutstandingToken.objects.filter(user=user).update(user=None)
    keys.delete_keys(owner=user)
    idempotency.forget(user_id=user.pk)
    user.emailed_links.all().delete()
    user.groups.clear()
    # The log of the admin site contains the names of the objects that people changed. An account
    # and a provider's profile, which has the same id, are named by the email address at that time.
    # The name of another object, for example a calendar, can be the same email address.
    LogEntry.objects.filter(Q(object_id=str(user.pk)) | Q(object_repr=user.email)).update(
        object_repr=""
    )
    emails = [*filter(None, [user.email, user.new_email])]
    with connection.cursor() as cursor:
        cursor.execute(DELETE_JOBS, {"task": links.TASK, "user_id": str(user.pk), "emails": emails})
