"""Builders of accounts."""

import factory
from factory.django import DjangoModelFactory

from accounts.models import User

PASSWORD = "correct horse battery"


class UserFactory(DjangoModelFactory):
    """A user whose password is `PASSWORD`."""

    class Meta:
        model = User

    # Not random: a test's password is refused if it resembles the name.
    name = factory.Sequence(lambda number: f"Ana Silva {number}")
    email = factory.Sequence(lambda number: f"person{number}@example.com")

    @classmethod
    def _create(cls, model_class, *args, **kwargs):
        password = kwargs.pop("password", PASSWORD)
        return model_class.objects.create_user(password=password, **kwargs)


class ProviderFactory(UserFactory):
    """A user who provides calendars."""

    role = User.Role.PROVIDER


class AdminFactory(UserFactory):
    """A user who runs the platform."""

    role = User.Role.ADMIN
