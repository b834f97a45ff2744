"""The base classes of `bookit.api` refuse methods, fields and options that would have no effect.

Serializers that concurrent requests share keep no state.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django_filters import rest_framework as filters
from rest_framework import serializers

from bookit.api.filters import FilterSet
from bookit.api.serializers import RowSerializer, StrictSerializer
from bookit.api.views import RowViewSet, _checker
from bookit.database.prepared import Prepared
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
def test_a_viewset_cannot_override_a_method_that_is_not_called(name, remedy):
    with refused(f"Mistaken.{name} would not be called.") as error:
        type("Mistaken", (RowViewSet,), {name: lambda self: Calendar.objects.none()})
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    "field", [serializers.SerializerMethodField(), serializers.CharField(source="name")]
)
def test_a_serializer_cannot_have_a_computed_field(field):
    with refused("Mistaken.words would not be computed"):
        type("Mistaken", (RowSerializer,), {"words": field})


@pytest.mark.parametrize("option", [{"required": True}, {"initial": "x"}])
def test_a_filter_cannot_be_required_or_have_a_default(option):
    with refused("Mistaken.name would apply only to requests that name it"):
        type("Mistaken", (FilterSet,), {"name": filters.CharFilter(**option)})


def test_classes_without_mistakes_are_accepted():
    """Control for the tests above: the base classes refuse only mistakes."""
    field = serializers.CharField()
    type("Right", (RowSerializer,), {"words": field})
    type("Right", (FilterSet,), {"name": filters.CharFilter()})
    type("Right", (RowViewSet,), {"listed": lambda self: Prepared(Calendar.objects.all)()})


# --- serializers that all threads share ----------------------------------------------------------


def outcome(serializer, body):
    """Return the result of validating a body: the values or the errors."""
    try:
        return repr(serializer.run_validation(body))
    except serializers.ValidationError as error:
        return repr(error.detail)


def count_mixed_up(serializer):
    """Return how many results differ if concurrent validations share a serializer."""
    names = [*serializer().fields]
    bodies = [
        {name: f"{name} {number}" for name in [*names[number % 3 :], f"unknown_{number}"]}
        for number in range(60)
    ]
    alone = [outcome(serializer(), body) for body in bodies]
    shared = _checker(serializer)
    with ThreadPoolExecutor(8) as pool:
        concurrent = [*pool.map(lambda body: outcome(shared, body), bodies)]
    return sum(one != other for one, other in zip(alone, concurrent, strict=True))


@pytest.mark.parametrize("serializer", SERIALIZERS, ids=lambda each: each.__name__)
def test_concurrent_requests_share_no_state(serializer):
    assert count_mixed_up(serializer) == 0


def test_a_validator_with_state_mixes_up_concurrent_results():
    """Control for the test above: `count_mixed_up` notices shared state."""

    class Stateful:
        def __call__(self, value):
            self.value = value
            time.sleep(0.001)
            raise serializers.ValidationError(f"{self.value} is wrong.")

    class Mistaken(StrictSerializer):
        name = serializers.CharField(validators=[Stateful()])

    assert count_mixed_up(Mistaken) > 0
