"""Finding rows in a distributed database. These tests do not need Citus."""

from uuid import uuid4

import pytest

from bookings.models import Slot
from bookings.slots.serializers import SlotSerializer
from bookings.tests.factories import SlotFactory
from bookit.api.views import ON_CALENDAR
from bookit.database.citus import lookups
from bookit.database.prepared import Prepared

pytestmark = pytest.mark.django_db

# How each of the two subqueries of `SlotSerializer.rows` refers to the calendar of the slot.
OUTER = ' = ("bookings_slot"."calendar_id")'


@pytest.fixture
def distributed(monkeypatch):
    """Let `bookit.database.citus.lookups` behave as if the rows were on several servers."""
    monkeypatch.setattr(lookups, "is_distributed", lambda: True)


def test_ids_are_strings_if_all_servers_answer():
    slot = SlotFactory()
    find = "SELECT calendar_id, array_agg(id) AS ids FROM bookings_slot GROUP BY calendar_id"
    assert lookups.fetch_reachable(find, {}, tables=["bookings_slot"]) == [
        {"calendar_id": str(slot.calendar_id), "ids": [str(slot.pk)]}
    ]


def text_of(slots):
    return str(SlotSerializer.rows(slots).query)


@pytest.mark.one_server("on a cluster, these subqueries name the calendar")
def test_on_one_server_subqueries_refer_to_the_calendar_of_the_row():
    calendar_id = uuid4()
    text = text_of(Slot.objects.filter(calendar=calendar_id))
    assert (text.count(f" = {calendar_id}"), text.count(OUTER)) == (1, 2)


def test_in_a_distributed_database_subqueries_name_the_calendar(distributed):
    calendar_id = uuid4()
    text = text_of(Slot.objects.filter(calendar=calendar_id))
    assert (text.count(f" = {calendar_id}"), text.count(OUTER)) == (3, 0)


def test_subqueries_of_rows_on_any_calendar_refer_to_the_calendar_of_the_row(distributed):
    assert text_of(Slot.objects.filter(status="scheduled")).count(OUTER) == 2


def test_subqueries_of_a_prepared_query_name_the_calendar_of_each_run(distributed):
    slots = Prepared(Slot.objects.all, SlotSerializer.rows)().changed(ON_CALENDAR, calendar=uuid4())
    assert OUTER not in slots.query.text
    named = [getattr(each, "name", "") for each in slots.query.parameters]
    assert named.count("calendar") == 3
    assert slots.first() is None
