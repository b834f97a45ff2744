"""The rules for API keys: who gets one, what it can be used for, and when it stops working."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import BinaryField, F, Q
from django.utils.translation import gettext as _

from accounts.extensions import PERMISSIONS
from accounts.keys import secrets
from accounts.keys.models import ApiKey
from accounts.links import services as links
from accounts.links.kinds import KEY_CREATED
from accounts.models import User
from accounts.sessions.models import Session
from accounts.sessions.tokens import TokenInvalid
from bookit.api.keys import UsedKey
from bookit.database.prepared import Prepared
from bookit.database.replicas import with_position
from bookit.database.retries import retried
from bookit.errors import Forbidden, Invalid

# Each key has its own rate limit, so an account with unlimited keys could send unlimited requests.
MAX_KEYS = 20
# `last_used_at` is updated at most once in this interval, so that few requests write to the table.
LAST_USE_INTERVAL = timedelta(minutes=1)

# An expiry must be before this time, because the last hours of 9999 overflow in some time zones.
EXPIRY_BOUND = datetime(9999, 1, 1, tzinfo=UTC)

# Finds the active owner of a key and the fields of the key in one query.
OWNER = Prepared(
    lambda digest: with_position(
        User.objects.all()
        .with_roles()
        .order_by()
        .filter(api_keys__digest=digest, is_active=True)
        .annotate(
            key_id=F("api_keys__id"),
            key_permissions=F("api_keys__permissions"),
            key_expires_at=F("api_keys__expires_at"),
            key_used_at=F("api_keys__last_used_at"),
        )
    ),
    digest=BinaryField(),
)


@retried
def create_key(
    *,
    owner: User,
    name: str,
    at: datetime,
    permissions: Collection[str] | None = None,
    expires_at: datetime | None = None,
    session_id: UUID | None = None,
) -> tuple[ApiKey, str]:
    """Create an API key. Return its row and the key itself, which is not stored.

    The owner is notified by email, in case somebody else created the key from an open session.

    Args:
        permissions: what the key can be used for; by default, whatever its owner may do when the
            key is used. No key can manage its owner's account or any feed URL, or change other
            accounts or roles.
        session_id: the session to which the access token of the request belongs, if any. The token
            works until it expires, even if its session has ended. A key would outlive the token, so
            the key is created only if the session has not ended.

    Raises:
        TokenInvalid: the session has ended.
        Invalid: a permission cannot be in a key, the expiry is past or too late, or the account has
            too many keys.
        Forbidden: the owner lacks one of the permissions.
    """
    if expires_at is not None and expires_at <= at:
        raise Invalid.of("expires_at", _("The expiry must be in the future."))
    if expires_at is not None and expires_at >= EXPIRY_BOUND:
        raise Invalid.of(
            "expires_at",
            _("The expiry must be before the year %(year)s.") % {"year": EXPIRY_BOUND.year},
        )
    for permission in permissions or ():
        _check_permission(owner, permission)
    key = secrets.new()
    with transaction.atomic():
        # The lock makes concurrent requests of the same user wait for each other, so that all keys
        # are counted. The requests also wait for a change of the password, which ends the session.
        User.objects.select_for_update(no_key=True).get(pk=owner.pk)
        if session_id and Session.objects.filter(pk=session_id).exclude(revoked_at=None).exists():
            raise TokenInvalid
        if ApiKey.objects.filter(user=owner).count() >= MAX_KEYS:
            raise Invalid.of(
                "",
                _("You have %(max_keys)s API keys. Delete one of them first.")
                % {"max_keys": MAX_KEYS},
            )
        row = ApiKey.objects.create(
            user=owner,
            name=name,
            prefix=key[: secrets.SHOWN],
            digest=secrets.digest(key),
            permissions=None if permissions is None else sorted({*permissions}),
            expires_at=expires_at,
            created_at=at,
        )
        links.enqueue(kind=KEY_CREATED, email=owner.email, user=owner)
    return row, key


@retried
def delete_key(*, key_id: UUID, owner: User) -> None:
    """Delete an API key. It stops working at once.

    Raises:
        ApiKey.DoesNotExist: the user has no key with this id.
    """
    ApiKey.objects.get(pk=key_id, user=owner).delete()


def delete_keys(*, owner: User) -> None:
    """Delete all API keys of a user. They stop working at once."""
    ApiKey.objects.filter(user=owner).delete()


def authenticate(*, key: str, at: datetime) -> tuple[User, UsedKey] | None:
    """Return the active owner of an API key and what the key permits; None if the key is invalid.

    A key that BookIt did not make is refused without a query. The timing of the lookup leaks
    nothing, because a guessed key has no valid seal and is never looked up.
    """
    digest = secrets.digest(key)
    owner = None if digest is None else OWNER.get(digest=digest)
    if owner is None:
        return None
    found: Any = owner
    if found.key_expires_at is not None and found.key_expires_at <= at:
        return None
    if found.key_used_at is None or at - found.key_used_at >= LAST_USE_INTERVAL:
        _note_use(found.key_id, at)
    # The events that the owner causes during this request record the key.
    owner.api_key_id = found.key_id
    named = found.key_permissions
    allowed = _usable() if named is None else _usable().intersection(named)
    return owner, UsedKey(found.key_id, allowed)


def _note_use(key_id: UUID, at: datetime) -> None:
    outdated = Q(last_used_at__isnull=True) | Q(last_used_at__lte=at - LAST_USE_INTERVAL)
    ApiKey.objects.filter(outdated, pk=key_id).update(last_used_at=at)


@cache
def _usable() -> frozenset[str]:
    """Return the permissions that an API key can have."""
    return frozenset(name for name, each in PERMISSIONS.items() if each.in_keys)


def _check_permission(owner: User, permission: str) -> None:
    if permission not in _usable():
        known = ", ".join(sorted(_usable()))
        raise Invalid.of(
            "permissions",
            _("A key cannot permit %(permission)s. It can permit: %(known)s.")
            % {"permission": permission[:100], "known": known},
        )
    own = PERMISSIONS[permission].own
    is_own = own == "user" or (own == "provider" and owner.is_keeper)
    if not is_own and not owner.may(permission):
        raise Forbidden(
            _("You do not have the permission %(permission)s yourself.")
            % {"permission": permission}
        )
