"""Factories for accounts."""

import factory
from factory.django import DjangoModelFactory

from accounts.models import User

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


class ProviderFactory(UserFactory):
    """A provider, who has calendars."""

    role = User.Role.PROVIDER


class AdminFactory(UserFactory):
    """An admin, who runs the platform."""

    role = User.Role.ADMIN
