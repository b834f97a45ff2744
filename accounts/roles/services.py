"""The rules for staff roles: what a role may contain, and who may give it to whom.

Nobody can give permissions that they do not have. To change a role, an actor needs every permission
that the role has or gets. To change the roles of a user, an actor needs every permission of the
roles that are given or taken away.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from django.contrib.auth.models import Group, Permission
from django.db import IntegrityError, transaction
from django.db.models import Q, Value
from django.db.models.functions import Greatest, Now
from django.utils.translation import gettext as _

from accounts.extensions import PERMISSIONS
from accounts.models import User
from accounts.roles.models import FULL_NAME, Role
from bookit.database.retries import retried
from bookit.errors import Forbidden, Invalid, database_error_facts

# Staff with the permission to change accounts can change only these fields, and the staff roles. By
# changing other fields, they could gain rights: they could make themselves providers, or take over
# an account through its email address.
STAFF_CHANGES = frozenset({"name", "phone", "timezone", "language", "is_active", "metadata"})


@retried
def create_role(
    *,
    name: str,
    permissions: Collection[str],
    actor: User,
    at: datetime,
    description: str = "",
) -> Role:
    """Create a role that nobody holds yet.

    Raises:
        Forbidden: the actor may not create roles, or lacks one of the permissions.
        Invalid: the name is taken, or a permission is unknown.
    """
    if not actor.may("accounts.add_role"):
        raise Forbidden
    _check_known(permissions)
    _check_has(actor, permissions)
    with transaction.atomic():
        group = Group(name=name)
        _save_unique(group)
        role = Role.objects.create(
            group=group, description=description, created_at=at, updated_at=at
        )
        group.permissions.set(_stored(permissions))
    return role


@retried
def update_role(*, role_id: UUID, actor: User, changes: dict[str, Any]) -> Role:
    """Change a role. Its holders get or lose its permissions at once.

    Raises:
        Role.DoesNotExist: the role does not exist.
        Forbidden: the actor may not change roles, or lacks a permission that the role has or would
            get.
        Invalid: the name is taken, or a permission is unknown.
    """
    if not actor.may("accounts.change_role"):
        raise Forbidden
    with transaction.atomic():
        role = _locked_role(role_id)
        permissions = changes.get("permissions", [])
        _check_known(permissions)
        _check_has(actor, {*role.permissions, *permissions})
        if "name" in changes:
            role.group.name = changes["name"]
            _save_unique(role.group)
        if "permissions" in changes:
            role.group.permissions.set(_stored(permissions))
        if changes:
            # The row is saved even if only its group has changed, because the trigger of the row
            # sets `updated_at`.
            role.description = changes.get("description", role.description)
            role.save(update_fields=["description"])
            role.refresh_from_db(fields=["updated_at"])
    return role


@retried
def delete_role(*, role_id: UUID, actor: User) -> None:
    """Delete a role. Its holders lose its permissions at once.

    Raises:
        Role.DoesNotExist: the role does not exist.
        Forbidden: the actor may not delete roles, or lacks a permission of the role.
    """
    if not actor.may("accounts.delete_role"):
        raise Forbidden
    with transaction.atomic():
        role = _locked_role(role_id)
        _check_has(actor, role.permissions)
        # Wait for requests that give the role to a user; see `give_roles`.
        Group.objects.select_for_update(no_key=True).get(pk=role.group_id)
        role.group.delete()


@transaction.atomic
def give_roles(*, user: User, names: Collection[str], actor: User) -> None:
    """Replace the roles of a user, whose row the caller has locked.

    Raises:
        Forbidden: the actor lacks a permission of a role that is given or taken away.
        Invalid: a role does not exist.
    """
    held, wanted = set(user.roles), set(names)
    # The lock keeps the roles from being deleted before the user has them.
    groups = Group.objects.filter(name__in=held | wanted).order_by("pk")
    found = {group.name: group for group in groups.select_for_update(no_key=True)}
    unknown = sorted(wanted - found.keys())
    if unknown:
        raise Invalid.of(
            "roles", _("There is no role with the name %(unknown)s.") % {"unknown": unknown[0]}
        )
    # A role that the user held can have been deleted or renamed since it was read.
    changed = [found[name].pk for name in held ^ wanted if name in found]
    permissions = Permission.objects.filter(group__in=changed).order_by()
    _check_has(actor, {*permissions.values_list(FULL_NAME, flat=True)})
    if held != wanted:
        user.groups.set([found[name] for name in wanted])
        # The trigger that sets `updated_at` does not run when only the groups of a user change.
        later = Greatest(Now(), Value(user.updated_at + timedelta(microseconds=1)))
        User.objects.filter(pk=user.pk).update(updated_at=later)
        user.refresh_from_db(fields=["updated_at"])
    user.has_roles, user.roles = bool(wanted), sorted(wanted)
    vars(user).pop("granted", None)


def check_changes_user(*, user: User, actor: User, changes: dict[str, Any]) -> None:
    """Check that an actor with the permission to change accounts may make these changes.

    Raises:
        Forbidden: the actor is not an admin, and one of these is true: a changed field is not in
            `STAFF_CHANGES`, the user is an admin, or the actor lacks a permission of the user.
    """
    if actor.is_admin:
        return
    for name, value in changes.items():
        if name not in STAFF_CHANGES and getattr(user, name) != value:
            raise Forbidden(
                _("Only admins can change this field of an account: %(name)s.") % {"name": name}
            )
    if not user.is_below_admins:
        raise Forbidden(_("Only admins can change the account of an admin."))
    missing = _missing(actor, user.granted)
    if missing:
        raise Forbidden(
            _(
                "You cannot change an account that has permissions that you do not have: "
                "%(missing)s."
            )
            % {"missing": missing}
        )


def _check_known(permissions: Collection[str]) -> None:
    known = sorted(name for name, each in PERMISSIONS.items() if each.in_roles)
    unknown = sorted({*permissions} - {*known})
    if unknown:
        raise Invalid.of(
            "permissions",
            _("A role cannot contain %(unknown)s. It can contain: %(known)s.")
            % {"unknown": unknown[0][:100], "known": ", ".join(known)},
        )


def _check_has(actor: User, permissions: Collection[str]) -> None:
    missing = _missing(actor, permissions)
    if missing:
        raise Forbidden(
            _(
                "You can give and take away only permissions that you have yourself. You do not "
                "have %(missing)s."
            )
            % {"missing": missing}
        )


def _missing(actor: User, permissions: Collection[str]) -> str:
    """Return the names of the permissions that the actor does not have; empty if there are none."""
    return ", ".join(sorted(each for each in permissions if not actor.may(each)))


def _stored(permissions: Collection[str]) -> list[Permission]:
    """Return the rows of these permissions."""
    pairs = [name.split(".") for name in permissions]
    conditions = [Q(content_type__app_label=app, codename=name) for app, name in pairs]
    found = Permission.objects.filter(reduce(or_, conditions)) if conditions else []
    return [*found]


def _locked_role(role_id: UUID) -> Role:
    return (
        Role.objects.select_for_update(of=("self",), no_key=True)
        .select_related("group")
        .get(pk=role_id)
    )


def _save_unique(group: Group) -> None:
    try:
        with transaction.atomic():
            group.save()
    except IntegrityError as error:
        if database_error_facts(error)[0] == "23505":  # unique_violation
            raise Invalid.of("name", _("There is already a role with this name.")) from None
        raise
