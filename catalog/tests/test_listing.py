"""All statements of a search can be prepared. Those for pages find the same services."""

import re
from itertools import chain
from uuid import UUID

import pytest
from django.db import connection
from django.db.models import DecimalField, TextField, UUIDField

from bookit.database.prepared import Prepared
from catalog.listing import Search
from catalog.models import Service
from catalog.search import SIMILAR, Words
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

ORDERS = {
    "id": ("id",),
    "title": ("title", "id"),
    "rating descending": ("-rating_average", "id"),
    "relevance descending": ("-relevance", "id"),
    "relevance": ("relevance", "id"),
    "relevance descending, title": ("-relevance", "title", "id"),
    "title, relevance descending": ("title", "-relevance", "id"),
}
WORDS = {
    "one": Words.of("yoga"),
    "four": Words.of("yoga for two beginners"),
    "the same twice": Words.of("yoga -yoga"),
    "unwanted": Words.of("yoga -class"),
    "only unwanted": Words.of("-class"),
    "none": Words.of("!"),
    "alternatives": Words((("yoga", "toga"), ("class",)), ("mat",), ("yogaclass",)),
    "beginnings": Words((("yoga", "'yoga':*"), ("class", "'class':*")), (), ("yogaclass",)),
}
# Filters besides the words, by name: the services that pass them, and the values of the filters.
FILTERS = {
    "none": (Prepared(Service.objects.all), {}),
    "active": (Prepared(lambda: Service.objects.filter(is_active=True)), {}),
    "a calendar's provider": (
        Prepared(
            lambda provider: Service.objects.filter(calendar__provider=provider),
            provider=UUIDField(),
        ),
        {"provider": UUID("01980000-0000-7000-8000-000000000000")},
    ),
    "percent signs": (
        Prepared(
            lambda part: Service.objects.filter(category__contains=part, price__gte=5),
            part=TextField(),
        ),
        {"part": "50%"},
    ),
    "the same column twice": (
        Prepared(
            lambda least, most: Service.objects.filter(price__gte=least, price__lte=most),
            least=DecimalField(),
            most=DecimalField(),
        ),
        {"least": 5, "most": 50},
    ),
}


def statements(filters, words):
    """Return all statements of a search, by kind, and the values of its words and filters."""
    prepared, values = FILTERS[filters]
    search = Search(prepared, words.shape)
    without_relevance = [order for name, order in ORDERS.items() if "relevance" not in name]
    texts = {
        "page": [*map(search.page, ORDERS.values())],
        "first page": [*map(search.first_page, without_relevance)],
        "count": [search.count],
    }
    return texts, {**words.parameters, **search.filter_values(values)}


def prepare(text):
    """Prepare a statement with numbered parameters, and return their original names in order."""
    names = [*dict.fromkeys(re.findall(r"%\((\w+)\)s", text))]
    for number, name in enumerate(names, start=1):
        text = text.replace(f"%({name})s", f"${number}")
    with connection.cursor() as cursor:
        # Without parameters, Django's cursor leaves percent signs alone.
        cursor.execute(f"PREPARE checked AS {text.replace('%%', '%')}")
        cursor.execute("DEALLOCATE checked")
    return names


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("words", WORDS)
def test_postgresql_accepts_every_statement(words, filters):
    texts, values = statements(filters, WORDS[words])
    for text in chain.from_iterable(texts.values()):
        names = {*prepare(text)}
        assert names <= {*values, "limit", "offset", "stop", "counts"}
        assert {*values} <= names


def test_postgresql_accepts_the_search_for_similar_words():
    assert {*prepare(SIMILAR)} == {"words", "last"}


def test_every_statement_for_a_page_finds_the_same_services():
    services = [
        ServiceFactory(title=title, description=description, price=10, category="50% off")
        for title, description in [
            ("Yoga class", "Bring a mat"),
            ("Class", "Yoga for beginners"),
            ("Boxing", "No yoga"),
            ("Boxing", "With gloves"),
        ]
    ]
    texts, values = statements("percent signs", WORDS["one"])
    for kind in ("page", "first page"):
        for text in texts[kind]:
            with connection.cursor() as cursor:
                page = {"limit": 10, "offset": 0, "stop": 10, "counts": True}
                cursor.execute(text, {**values, **page})
                rows = cursor.fetchall()
            assert {pk for pk, *_ in rows} == {service.pk for service in services[:3]}
            counts = {"page": (3, False), "first page": ()}
            assert {tuple(count) for _, *count in rows} == {counts[kind]}


@pytest.mark.parametrize("words", WORDS)
def test_statements_stay_short_enough_for_the_cache_of_psycopg(words):
    # Each time a longer statement runs, psycopg parses it again (`MAX_CACHED_STATEMENT_LENGTH`).
    texts, _ = statements("active", WORDS[words])
    assert max(map(len, chain.from_iterable(texts.values()))) <= 4096


def test_a_search_reads_only_columns_that_it_uses():
    services, _ = FILTERS["active"]
    text = Search(services, WORDS["one"].shape).page(ORDERS["title"])
    assert "SELECT id, is_active, title FROM catalog_service" in text
