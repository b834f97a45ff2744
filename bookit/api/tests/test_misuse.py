"""What the fast base classes would ignore is refused, and what they share is not mixed up."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django_filters import rest_framework as filters
from rest_framework import serializers

from accounts.tests.factories import UserFactory
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.api import views
from bookit.api.filters import FilterSet
from bookit.api.serializers import InputSerializer, RowSerializer
from bookit.api.views import RowViewSet, _checker
from bookit.tests.routes import every_path
from catalog.models import Calendar

VIEWSETS = {view.cls for _, view in every_path() if hasattr(view, "actions")}
SERIALIZERS = sorted(
    {
        serializer
        for view in VIEWSETS
        for serializer in [getattr(view, "serializer_class", None), *view.input_classes.values()]
        if serializer
    },
    key=lambda serializer: serializer.__name__,
)


def refused(text):
    return pytest.raises(TypeError, match=re.escape(text))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("get_queryset", "Narrow a list in `listed`"), ("get_object", "`object_rows`")],
)
def test_a_viewset_that_overrides_what_is_not_called(name, remedy):
    with refused(f"Mistaken.{name} would not be called.") as error:
        type("Mistaken", (RowViewSet,), {name: lambda self: Calendar.objects.none()})
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    "field", [serializers.SerializerMethodField(), serializers.CharField(source="name")]
)
def test_a_serializer_with_a_field_that_is_not_computed(field):
    with refused("Mistaken.words would not be computed"):
        type("Mistaken", (RowSerializer,), {"words": field})


@pytest.mark.parametrize("option", [{"required": True}, {"initial": "x"}])
def test_a_filter_that_would_not_apply_to_every_request(option):
    with refused("Mistaken.name would apply only where a request names a filter"):
        type("Mistaken", (FilterSet,), {"name": filters.CharFilter(**option)})


def test_what_the_apps_do_is_allowed():
    """The control."""
    field = serializers.CharField()
    type("Right", (RowSerializer,), {"words": field})
    type("Right", (FilterSet,), {"name": filters.CharFilter()})
    type("Right", (RowViewSet,), {"listed": lambda self: Calendar.objects.none()})


# --- lists that are prepared ---------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/services", "/bookings"])
def test_a_prepared_list_and_a_filtered_one_are_in_the_same_order(api, url, monkeypatch):
    user = UserFactory()
    for hour in (3, 1, 2):
        start = TUESDAY.replace(hour=hour)
        BookingFactory(user=user, service__title=f"{9 - hour}", start_time=start)
    api = api.as_(user)
    as_it_is = api.get(url).json()["results"]
    monkeypatch.setattr(views, "PAGING", frozenset())
    assert api.get(f"{url}?limit=20").json()["results"] == as_it_is
    assert len(as_it_is) == 3


# --- serializers that all threads share ----------------------------------------------------------


def outcome(serializer, body):
    """Return what a check of a body comes to."""
    try:
        return repr(serializer.run_validation(body))
    except serializers.ValidationError as error:
        return repr(error.detail)


def mixed_up(serializer):
    """Return how many of many checks at the same time end otherwise than each would alone."""
    names = [*serializer().fields]
    bodies = [
        {name: f"{name} {number}" for name in [*names[number % 3 :], f"unknown_{number}"]}
        for number in range(60)
    ]
    alone = [outcome(serializer(), body) for body in bodies]
    shared = _checker(serializer)
    with ThreadPoolExecutor(8) as pool:
        together = [*pool.map(lambda body: outcome(shared, body), bodies)]
    return sum(one != other for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("serializer", SERIALIZERS, ids=lambda each: each.__name__)
def test_nothing_of_one_request_reaches_another(serializer):
    assert mixed_up(serializer) == 0


def test_a_validator_that_keeps_state_would_be_noticed():
    """The control."""

    class Forgetful:
        def __call__(self, value):
            self.value = value
            time.sleep(0.001)
            raise serializers.ValidationError(f"{self.value} is wrong.")

    class Mistaken(InputSerializer):
        name = serializers.CharField(validators=[Forgetful()])

    assert mixed_up(Mistaken) > 0
