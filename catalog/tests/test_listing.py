"""The statements of a search, each of which can be pasted into psql."""

import re
from uuid import UUID

import pytest
from django.db import connection
from django.db.models import F

from catalog.listing import Search
from catalog.models import Service
from catalog.search import SIMILAR, Words
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

BY_ID = F("id").asc()
ORDERS = {
    "id": [BY_ID],
    "title": [F("title").asc(), BY_ID],
    "rating, descending": [F("rating_average").desc(nulls_last=True), BY_ID],
    "relevance, descending": [F("relevance").desc(), BY_ID],
    "relevance": [F("relevance").asc(), BY_ID],
    "relevance, title": [F("relevance").desc(), F("title").asc(), BY_ID],
    "title, relevance": [F("title").asc(), F("relevance").desc(), BY_ID],
}
WORDS = {
    "one": Words.of("yoga"),
    "four": Words.of("yoga for two beginners"),
    "the same twice": Words.of("yoga -yoga"),
    "unwanted": Words.of("yoga -class"),
    "only unwanted": Words.of("-class"),
    "none": Words.of("!"),
    "alternatives": Words((("yoga", "toga"), ("class",)), ("mat",), ("yogaclass",)),
}
FILTERS = {
    "none": lambda: Service.objects.all(),
    "active": lambda: Service.objects.filter(is_active=True),
    "a calendar's provider": lambda: Service.objects.filter(
        calendar__provider=UUID("01980000-0000-7000-8000-000000000000")
    ),
    "percent signs": lambda: Service.objects.filter(category__contains="50%", price__gte=5),
    "the same column twice": lambda: Service.objects.filter(price__gte=5, price__lte=50),
}


def statements(services, words):
    """Return all statements of a search."""
    search = Search(services, words)
    for order in ORDERS.values():
        ranks = any(term.expression.name == "relevance" for term in order)
        yield search, search.page_by_relevance(order) if ranks else search.page(order)
    yield search, search.count()


def prepare(text):
    """Prepare a statement, as psql does, and return the names of its parameters in order."""
    names = [*dict.fromkeys(re.findall(r"%\((\w+)\)s", text))]
    for number, name in enumerate(names, start=1):
        text = text.replace(f"%({name})s", f"${number}")
    with connection.cursor() as cursor:
        # Without parameters, Django's cursor leaves percent signs alone.
        cursor.execute(f"PREPARE pasted AS {text.replace('%%', '%')}")
        cursor.execute("DEALLOCATE pasted")
    return names


@pytest.mark.parametrize("services", FILTERS)
@pytest.mark.parametrize("words", WORDS)
def test_postgresql_accepts_every_statement_as_it_is(words, services):
    for search, text in statements(FILTERS[services](), WORDS[words]):
        names = {*prepare(text)}
        assert names <= {*search.parameters, "limit", "offset", "stop"}
        assert {*search.parameters} <= names


def test_postgresql_accepts_the_dictionary_lookup_as_it_is():
    assert {*prepare(SIMILAR)} == {"words", "longest", "last"}


def test_every_page_statement_finds_the_same_services():
    services = [
        ServiceFactory(title=title, description=description, price=10, category="50% off")
        for title, description in [
            ("Yoga class", "Bring a mat"),
            ("Class", "Yoga for beginners"),
            ("Boxing", "No yoga"),
            ("Boxing", "With gloves"),
        ]
    ]
    search = Search(FILTERS["percent signs"](), WORDS["one"])
    for order in ORDERS.values():
        ranks = any(term.expression.name == "relevance" for term in order)
        text = search.page_by_relevance(order) if ranks else search.page(order)
        with connection.cursor() as cursor:
            cursor.execute(text, {**search.parameters, "limit": 10, "offset": 0, "stop": 10})
            rows = cursor.fetchall()
        assert {pk for pk, _, _ in rows} == {service.pk for service in services[:3]}
        assert {(total, has_more) for _, total, has_more in rows} == {(3, False)}


@pytest.mark.parametrize("words", WORDS)
def test_statements_stay_short_enough_to_be_prepared(words):
    # psycopg prepares statements of up to 4,096 characters.
    for _, text in statements(FILTERS["active"](), WORDS[words]):
        assert len(text) <= 4096


def test_a_search_reads_only_columns_that_it_uses():
    text = Search(FILTERS["active"](), WORDS["one"]).page(ORDERS["title"])
    assert "SELECT id, is_active, title FROM catalog_service" in text
