"""The table of staff roles."""

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models import OuterRef, Value
from django.db.models.functions import Concat, Now
from uuid_utils.compat import uuid7

from bookit.database.versions import updated_at_trigger

FULL_NAME = Concat("content_type__app_label", Value("."), "codename")


def role_names(user: str) -> ArraySubquery:
    """Return an expression for the names of a user's roles, in alphabetical order.

    Args:
        user: the lookup path from the outer query to the id of the user.
    """
    return ArraySubquery(Group.objects.filter(user=OuterRef(user)).order_by("name").values("name"))


def permission_names(group: str) -> ArraySubquery:
    """Return an expression for the names of a group's permissions, in alphabetical order.

    Args:
        group: the lookup path from the outer query to the id of the group.
    """
    held = Permission.objects.filter(group=OuterRef(group)).annotate(full_name=FULL_NAME)
    return ArraySubquery(held.order_by("full_name").values("full_name"))


class Role(models.Model):
    """A named set of permissions. A Django `Group` stores the name and the permissions.

    A user holds a role by being in its group. The id of a group is a number, and a group has no
    description, so this row adds a UUID and a description.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    group = models.OneToOneField(Group, on_delete=models.CASCADE, related_name="role")
    description = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [updated_at_trigger("role")]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The name of the role."""
        return self.group.name

    @property
    def permissions(self) -> list[str]:
        """The names of the permissions, such as `bookings.view_booking`, in alphabetical order."""
        held: Any = self.group.permissions.annotate(full_name=FULL_NAME).order_by("full_name")
        return [*held.values_list("full_name", flat=True)]
