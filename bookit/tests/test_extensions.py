"""Extension points: an app declares them, and the apps above it add values to them."""

import re
import subprocess
import sys

import pytest

from accounts.extensions import ERASERS, EXPORTERS, ON_NEW_ADMIN, ON_NEW_PROVIDER
from bookings.extensions import EVENT_DATA
from bookit.errors import CONSTRAINT_ERRORS
from bookit.extensions import Extensions
from bookit.runtime.startup import BASE_DIR
from bookit.tests.test_architecture import NAMES
from catalog.extensions import AFFECTED, FILTERS

# A call that adds a value to an extension point: a statement or a decorator.
ADDS = r"^\s*@?[A-Z_]+\.add\("


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


def test_every_module_that_adds_to_an_extension_point_is_imported_at_the_start():
    """If not, what the module adds is missing in production: import it in `AppConfig.ready()`."""
    adding = {name for name in NAMES if re.search(ADDS, (BASE_DIR / name).read_text(), re.M)}
    assert "bookings/privacy.py" in adding
    start = "import sys, django; django.setup(); import bookit.urls; print(*sys.modules, sep='\\n')"
    # A new process, because the tests of this process have imported other modules.
    loaded = subprocess.run(
        [sys.executable, "-c", start], cwd=BASE_DIR, capture_output=True, text=True, check=True
    ).stdout.split()
    modules = {name: name.removesuffix(".py").replace("/", ".") for name in adding}
    assert {name for name, module in modules.items() if module not in loaded} == set()


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
