"""The rule about who keeps (manages) a calendar agrees in Python and in SQL; see `User.keeps`."""

from itertools import product
from uuid import uuid4

import pytest
from django.db import connection

from accounts.models import User, keeps_own
from accounts.tests.factories import UserFactory
from catalog.models import Calendar
from catalog.tests.factories import CalendarFactory

pytestmark = pytest.mark.django_db

PEOPLE = [*product(User.Role.values, [True, False])]


@pytest.fixture(params=PEOPLE, ids=lambda person: f"{person[0]}-is_active={person[1]}")
def person(request):
    role, is_active = request.param
    return UserFactory(role=role, is_active=is_active)


def manages_own_calendars(person):
    """Return, for each form of the rule, whether a person manages their own calendars."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {keeps_own('person')} FROM accounts_user AS person WHERE id = %s", [person.pk]
        )
        [(in_sql,)] = cursor.fetchall()
    CalendarFactory(provider=person)
    return {
        "keeps": person.keeps(person.pk),
        "is_keeper": person.is_keeper,
        "keepers": User.objects.all().keepers().filter(pk=person.pk).exists(),
        "on_own_calendars": Calendar.objects.filter(person.on_own_calendars("provider")).exists(),
        "keeps_own": in_sql,
    }


def test_active_providers_and_admins_manage_their_own_calendars(person):
    expected = person.is_active and person.role in ("provider", "admin")
    assert set(manages_own_calendars(person).values()) == {expected}


@pytest.mark.parametrize("whose", ["another's", "nobody's"])
def test_only_active_admins_manage_the_calendars_of_others(person, whose):
    provider_id = uuid4() if whose == "another's" else None
    expected = person.is_active and person.role == "admin"
    assert person.keeps(provider_id) == person.is_admin == expected
    assert User.objects.all().active_admins().filter(pk=person.pk).exists() == expected


def test_on_own_calendars_finds_only_a_persons_own_calendars(person):
    CalendarFactory(provider=UserFactory(role="provider"))
    CalendarFactory(provider=None)
    assert not Calendar.objects.filter(person.on_own_calendars("provider")).exists()
