"""Extension points: an app declares them, and the apps above it add values to them."""

import pytest

from accounts.extensions import ERASERS, EXPORTERS, ON_NEW_ADMIN, ON_NEW_PROVIDER
from bookings.extensions import EVENT_DATA
from bookit.errors import CONSTRAINT_ERRORS
from bookit.extensions import Extensions
from catalog.extensions import AFFECTED, FILTERS


def test_a_value_is_found_under_each_of_its_names():
    numbers = Extensions()
    assert numbers.add("one", "first")(1) == 1
    assert numbers == {"one": 1, "first": 1}


def test_a_different_value_for_a_name_is_refused():
    numbers = Extensions()
    numbers.add("one")(1)
    numbers.add("one")(1)  # The same value can be added again.
    with pytest.raises(ValueError, match="one was added before: 1"):
        numbers.add("one")(2)
    assert numbers == {"one": 1}


def test_the_apps_use_the_extension_points():
    assert {name: thing.__module__ for name, thing in ON_NEW_PROVIDER.items()} == {
        "calendar": "catalog.services"
    }
    assert ON_NEW_ADMIN.keys() == {"webhooks"}
    assert ERASERS.keys() == {"catalog", "bookings"}
    assert {"user", "sessions", "services", "bookings", "reviews"} < EXPORTERS.keys()
    assert AFFECTED.keys() == {"bookings"}
    assert FILTERS.keys() == {"services"}
    assert EVENT_DATA.keys() == {"review.created"}
    assert "booking_calendar_free" in CONSTRAINT_ERRORS
