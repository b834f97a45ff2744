"""Factories for accounts."""

import factory
from django.utils.timezone import now
from factory.django import DjangoModelFactory

from accounts.models import User
from accounts.roles.models import Role
from accounts.roles.services import create_role, give_roles

PASSWORD = "correct horse battery"


class UserFactory(DjangoModelFactory):
    """A user whose password is `PASSWORD`."""

    class Meta:
        model = User

    # The names are not random, because a password that resembles the name is refused.
    name = factory.Sequence(lambda number: f"Ana Silva {number}")
    email = factory.Sequence(lambda number: f"person{number}@example.com")

    @classmethod
    def _create(cls, model_class, *args, **kwargs):
        password = kwargs.pop("password", PASSWORD)
        return model_class.objects.create_user(password=password, **kwargs)


def staff(permissions, **fields):
    """Return a user who holds a role with these permissions, and no other role."""
    name = f"Role {Role.objects.count() + 1}"
    admin = User(role=User.Role.ADMIN)
    create_role(name=name, permissions=permissions, actor=admin, at=now())
    user = UserFactory(**fields)
    give_roles(user=user, names=[name], actor=admin)
    return user


class ProviderFactory(UserFactory):
    """A provider, without calendars."""

    role = User.Role.PROVIDER


class AdminFactory(UserFactory):
    """An admin, who runs the platform."""

    role = User.Role.ADMIN
