"""A search for services by words matches stems and misspellings. The best match comes first."""

import re
import unicodedata
from importlib import import_module
from itertools import chain
from urllib.parse import quote

import pytest
from django.apps import apps
from django.db import connection

from bookit.tests.crowd import run
from bookit.tests.expect import problem
from catalog.models import Service, Word
from catalog.search import WORD
from catalog.tests.factories import ServiceFactory
from catalog.triggers import DIVIDERS

pytestmark = pytest.mark.django_db

TOWN = [
    ("Haircut", "Washing, cutting and drying."),
    ("Beard trim", "After your haircut, or without one."),
    ("Mathematics tutoring", "Algebra and geometry for pupils."),
    ("Yoga class", "Breathing, stretching, resting. Bring a mat."),
    ("Deep tissue massage", "Sixty minutes for tired runners."),
    ("Meeting room", "Twelve chairs, a projector and coffee."),
]


@pytest.fixture
def town():
    for title, description in TOWN:
        ServiceFactory(title=title, description=description)


def search(api, words, more=""):
    response = api.get(f"/services?q={quote(words)}{more}")
    assert response.status_code == 200, response.content
    return [row["title"] for row in response.json()["results"]]


@pytest.mark.parametrize(
    ("words", "title"),
    [
        # Exact words, in upper or lower case, in the title or the description.
        ("Haircut", "Haircut"),
        ("YOGA", "Yoga class"),
        ("projector", "Meeting room"),
        ("yoga class", "Yoga class"),
        # Stems.
        ("massages", "Deep tissue massage"),
        ("rooms", "Meeting room"),
        ("stretch", "Yoga class"),
        ("runner", "Deep tissue massage"),
        ("tutor", "Mathematics tutoring"),
        # Misspelled words.
        ("hiarcut", "Haircut"),
        ("haircutt", "Haircut"),
        ("hair cut", "Haircut"),
        ("pro jector", "Meeting room"),
        ("haricut", "Haircut"),
        ("yogga", "Yoga class"),
        ("masage", "Deep tissue massage"),
        ("mathmatics", "Mathematics tutoring"),
        ("projektor", "Meeting room"),
        ("geometri", "Mathematics tutoring"),
        # Two spelling mistakes.
        ("matematiks", "Mathematics tutoring"),
        ("strechin yoga", "Yoga class"),
        # An unfinished word.
        ("mathem", "Mathematics tutoring"),
        # Stop words together with words that are not stop words.
        ("a yoga class for the", "Yoga class"),
        # Stop words together with misspelt words.
        ("matematiks between themselves", "Mathematics tutoring"),
        ("themselves matematiks", "Mathematics tutoring"),
    ],
)
def test_words_find_the_intended_service(api, town, words, title):
    assert search(api, words)[:1] == [title]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Cut/Colour", "colour"),
        ("Cut/Colour", "colr"),
        ("Lessons in node.js", "node"),
        ("Lessons in node.js", "node.js"),
        ("Yoga <beginners>", "beginners"),
        ("Write to ada@example.com", "ada"),
        ("Beard_trim", "trim"),
        ("Trial -50%", "50"),
        ("Men\u2019s cut", "men\u2019s"),
        ("Men\u2019s cut", "men's"),
        ("Cut\u2014beard\u2026", "beard"),
        ("60\u201390 minutes", "90"),
        ("\u201eRuhe\u201c", "ruhe"),
        ("Manicure \u20ac20", "20"),
        ("Nails\u2122", "nails"),
        ("\u30ab\u30c3\u30c8\u30fb\u30ab\u30e9\u30fc", "\u30ab\u30e9\u30fc"),
        ("\u0928\u092f\u093e \u092f\u094b\u0917", "\u092f\u094b\u0917"),
        ("\U0001f487Haircut", "haircut"),
        ("Cafe\u0301 Épilation", "épilation"),
        ("Стрижка/борода", "борода"),
    ],
)
@pytest.mark.parametrize("field", ["title", "description"])
def test_punctuation_divides_words(api, field, text, word):
    service = ServiceFactory(**{"title": "Session", "description": "", field: text})
    ServiceFactory(title="Massage")
    assert search(api, word) == [service.title]


def test_the_same_characters_divide_services_and_searches():
    """Services are divided into words in PostgreSQL, searches in Python (`Words.of`)."""
    # The first two planes of Unicode, except surrogates, which PostgreSQL cannot store.
    every = [chr(code) for code in range(1, 0x20000) if not 0xD800 <= code < 0xE000]
    with connection.cursor() as cursor:
        cursor.execute("SELECT regexp_replace(%s, %s, '', 'g')", ["".join(every), f"[{DIVIDERS}]+"])
        [[kept]] = cursor.fetchall()
    assert [*kept] == [each for each in every if WORD.search(each)]


def test_common_punctuation_marks_divide_words_and_letters_do_not():
    divides = re.compile(f"[{DIVIDERS}]").match
    for code in range(1, 0x20000):
        if unicodedata.category(chr(code))[0] == "L":
            assert not divides(chr(code)), hex(code)
    # Latin, punctuation, arrows and symbols; punctuation of Chinese and Japanese, full-width forms.
    blocks = [range(1, 0x250), range(0x2000, 0x2070), range(0x2190, 0x2C00)]
    blocks += [range(0x2E00, 0x3040), range(0xFE00, 0xFFE0)]
    for code in chain(*blocks):
        if unicodedata.category(chr(code))[0] in "PZ":
            assert divides(chr(code)), hex(code)


def test_the_migration_learns_the_words_of_the_services_that_exist():
    for title in ("Cut/Colour", "Yoga", "Men\u2019s cut"):
        ServiceFactory(title=title, description="")
    Word.objects.all().delete()
    import_module("catalog.migrations.0009_learn_words").learn(apps, connection.schema_editor())
    # The dictionary contains no words of fewer than four letters.
    assert {*Word.objects.values_list("text", flat=True)} == {"colour", "yoga"}


@pytest.mark.parametrize("words", ["plumber", "xyzzy", "zzzzzzzz", "qqq www eee"])
def test_unrelated_words_find_nothing(api, town, words):
    assert search(api, words) == []


def test_words_of_fewer_than_four_letters_are_neither_corrected_nor_completed(api, town):
    assert search(api, "roo") == []
    assert search(api, "yog") == []


def test_stop_words_are_not_replaced_by_similar_words(api, town):
    ServiceFactory(title="Walking tour of an hour")
    assert search(api, "your masage") == ["Deep tissue massage"]
    assert search(api, "your") == []


def test_an_unfinished_word_finds_every_service_with_a_word_that_begins_with_it(api):
    titles = ["Massacre in the opera", "Massage", "Masseur", "Massif central", "Massive cuts"]
    for title in titles:
        ServiceFactory(title=title)
    assert sorted(search(api, "mass")) == titles
    assert search(api, "opera mass") == titles[:1]
    assert search(api, "opra mass") == titles[:1]


def test_words_of_former_services_do_not_hide_services_from_unfinished_words(api):
    for title in ("Massacre", "Massif", "Massive"):
        ServiceFactory(title=title).delete()
    ServiceFactory(title="Massed", is_active=False)
    ServiceFactory(title="Massotherapy")
    assert search(api, "mass") == ["Massotherapy"]


def test_a_match_in_the_title_comes_before_a_match_in_the_description(api, town):
    assert search(api, "haircut") == ["Haircut", "Beard trim"]


def test_similar_words_are_not_searched_for_if_a_service_matches(api):
    for title in ("Massage", "Message service", "Passage"):
        ServiceFactory(title=title)
    assert search(api, "massage") == ["Massage"]


@pytest.mark.parametrize("words", ['"beard trim"', '"trim beard"'])
def test_the_words_of_a_quoted_phrase_are_searched_for_one_by_one(api, town, words):
    assert search(api, words)[:1] == ["Beard trim"]


def test_matches_can_be_put_in_other_orders(api, town):
    assert search(api, "haircut", "&ordering=title") == ["Beard trim", "Haircut"]
    assert search(api, "haircut", "&ordering=relevance") == ["Beard trim", "Haircut"]
    assert search(api, "haircut", "&ordering=-relevance,title") == ["Haircut", "Beard trim"]


def test_words_and_filters_are_combined(api, town):
    Service.objects.filter(title="Haircut").update(price=99)
    assert search(api, "haircut", "&price_max=50") == ["Beard trim"]
    Service.objects.filter(title="Haircut").update(is_active=False)
    assert search(api, "haircut") == ["Beard trim"]
    assert search(api, "haircut", "&active=any") == ["Haircut", "Beard trim"]


def test_matches_are_counted_and_paged(api):
    for number in range(5):
        ServiceFactory(title=f"Yoga {number}")
    ServiceFactory(title="Boxing")
    pages = [api.get(f"/services?q=yoga&limit=2&page={page}").json() for page in (1, 2, 3)]
    assert [page["count"] for page in pages] == [5, 5, 5]
    found = [row["title"] for page in pages for row in page["results"]]
    assert sorted(found) == [f"Yoga {number}" for number in range(5)]


class TestCountLimit:
    @pytest.fixture(autouse=True)
    def ten_matches(self, limit_search):
        limit_search("MAX_FOUND", 10)
        for number in range(10):
            ServiceFactory(title=f"Yoga {number}", category="Sport" if number % 2 else "Calm")
        run("ANALYZE catalog_service")

    def add_an_eleventh_match(self):
        ServiceFactory(title="Yoga 10", category="Calm")
        run("ANALYZE catalog_service")

    @pytest.mark.parametrize("page", [1, 2, 9])
    @pytest.mark.parametrize("order", ["", "&ordering=title", "&ordering=relevance"])
    def test_ten_matches_are_counted_exactly(self, api, page, order):
        shown = api.get(f"/services?q=yoga&limit=5&page={page}{order}").json()
        assert shown["count"] == 10
        assert "count_exact" not in shown

    @pytest.mark.parametrize("more", ["", "&ordering=title", "&page=9"])
    def test_the_count_of_eleven_matches_is_an_estimate(self, api, more):
        self.add_an_eleventh_match()
        shown = api.get(f"/services?q=yoga&limit=2{more}").json()
        assert (shown["count"], shown["count_exact"]) == (10, False)

    @pytest.mark.parametrize("more", ["", "&ordering=title", "&page=9"])
    def test_a_filter_does_not_make_an_estimated_count_exact(self, api, more):
        url = f"/services?q=yoga&limit=2&category=Sport{more}"
        shown = api.get(url).json()
        assert shown["count"] == 5
        assert "count_exact" not in shown
        self.add_an_eleventh_match()
        shown = api.get(url).json()
        assert shown["count"] <= 5
        assert shown["count_exact"] is False

    def test_an_estimate_is_used_again_for_the_same_words_and_filters(self, api):
        self.add_an_eleventh_match()
        assert api.get("/services?q=yoga&limit=2").json()["count_exact"] is False
        Service.objects.filter(title__in=["Yoga 9", "Yoga 10"]).delete()
        assert api.get("/services?q=yoga&limit=2&page=2").json()["count_exact"] is False
        for other in ("q=yogas", "q=yoga&category=Sport", "q=yoga -boxing"):
            assert "count_exact" not in api.get(f"/services?{other}&limit=2").json(), other


class TestFrequentWords:
    """Searches with more than `MAX_FOUND` matches, mostly in the order of a field."""

    @pytest.fixture(autouse=True)
    def thirty_matches(self, limit_search):
        limit_search("MAX_FOUND", 10)
        limit_search("FREQUENT", 2)
        # Vacuum can free the space of earlier rows. New rows would fill these gaps in any order.
        run("TRUNCATE catalog_service CASCADE")
        for number in range(30):
            # The services that PostgreSQL finds first are the most expensive.
            ServiceFactory(title=f"Yoga {number}", price=100 - number)
        ServiceFactory(title="Boxing", price=1)
        run("ANALYZE catalog_service")

    def test_a_page_is_chosen_from_all_matches(self, api):
        for _time in range(2):  # before and after the number of matches is known
            assert search(api, "yoga", "&ordering=price&limit=4") == [
                f"Yoga {number}" for number in (29, 28, 27, 26)
            ]
        assert search(api, "yoga", "&ordering=price&limit=2&page=2") == ["Yoga 27", "Yoga 26"]
        assert search(api, "yoga -26", "&ordering=price&limit=4")[-1] == "Yoga 25"
        assert search(api, "yoga", "&ordering=-price&limit=2") == ["Yoga 0", "Yoga 1"]
        assert search(api, "yoga", "&ordering=price&price_min=80&limit=1") == ["Yoga 20"]

    def test_control_the_matches_that_are_counted_lack_the_cheapest_service(
        self, api, limit_search
    ):
        limit_search("FREQUENT", 100)
        assert search(api, "yoga", "&ordering=price&limit=1") == ["Yoga 9"]

    @pytest.mark.parametrize("order", ["rating", "-rating"])
    def test_services_without_ratings_come_last(self, api, order):
        Service.objects.filter(title="Yoga 7").update(rating_sum=4, rating_count=1)
        assert search(api, "yoga", f"&ordering={order}&limit=1") == ["Yoga 7"]

    def test_a_page_that_ends_far_back_contains_only_counted_matches(self, api):
        # 6 rows * FREQUENT are more than MAX_FOUND.
        assert search(api, "yoga", "&ordering=price&limit=6") == [
            f"Yoga {number}" for number in (9, 8, 7, 6, 5, 4)
        ]

    def test_a_page_contains_only_counted_matches_if_too_few_of_the_first_services_match(
        self, api, limit_search
    ):
        limit_search("MAX_READ", 3)  # the boxing class, and two of the four services of the page
        for _time in range(2):
            assert search(api, "yoga", "&ordering=price&limit=4") == [
                f"Yoga {number}" for number in (9, 8, 7, 6)
            ]

    def test_the_count_is_the_same_in_the_order_of_price_and_by_relevance(self, api):
        for order in ("price", "-relevance"):
            for _time in range(2):
                shown = api.get(f"/services?q=yoga&limit=4&ordering={order}").json()
                assert (shown["count"], shown["count_exact"]) == (10, False)


def test_only_the_four_longest_words_must_be_in_a_service(api, town):
    assert search(api, "a deep tissue massage for you or me") == ["Deep tissue massage"]
    assert search(api, "massage tissue runners minutes piano") == ["Deep tissue massage"]
    assert search(api, "massage tissue runners minutes keyboards") == []


def test_only_the_four_longest_unwanted_words_exclude_services(api, town):
    assert search(api, "massage -piano -drums") == ["Deep tissue massage"]
    assert search(api, "massage tissue runners minutes -sixty") == []
    assert search(api, "massage -runners -keyboard -trumpets -saxophone -deep") == []
    assert search(api, "massage -guitars -keyboard -trumpets -saxophone -deep") != []


def test_services_with_the_words_in_their_titles_come_first(api, limit_search):
    limit_search("MAX_RANKED", 3)
    in_title = {ServiceFactory(title=f"Yoga {number}").title for number in range(3)}
    in_description = [
        ServiceFactory(title=f"Class {number}", description="Yoga") for number in range(4)
    ]
    newest_first = [
        each.title for each in sorted(in_description, key=lambda each: each.pk, reverse=True)
    ]
    assert set(search(api, "yoga", "&limit=3")) == in_title
    assert set(search(api, "yoga")[:3]) == in_title
    assert search(api, "yoga")[3:] == newest_first
    assert search(api, "yoga", "&limit=3&page=2") == newest_first[:3]
    assert search(api, "yoga", "&limit=2&page=2")[1:] == newest_first[:1]
    assert set(search(api, "yoga", "&ordering=relevance")[4:]) == in_title


def test_a_search_result_equals_the_service_shown_on_its_own(api, town):
    row = api.get("/services?q=yoga").json()["results"][0]
    assert row == api.get(f"/services/{row['id']}").json()


def test_a_changed_service_is_found_only_by_its_new_words(api):
    service = ServiceFactory(title="Haircut")
    service.title = "Astronomy"
    service.save()
    assert search(api, "astronomy") == ["Astronomy"]
    assert search(api, "haircut") == []


@pytest.mark.parametrize("words", ["", " ", "\t \n"])
def test_blank_words_are_refused(api, town, words):
    for more in ("", "&ordering=price", "&ordering=relevance"):
        response = api.get(f"/services?q={quote(words)}{more}")
        problem(response, 400, "validation_error", "q")


@pytest.mark.parametrize(
    "words",
    [
        "'",
        '"',
        '"unbalanced',
        "'; DROP TABLE catalog_service; --",
        "\\",
        "%",
        "_%_",
        "a & | ! ( ) : * <-> b",
        "!!!",
        "-",
        "- -",
        "-haircut",
        "or",
        "or or or",
        "the a of",
        ":*",
        "hair:*",
        "{}",
        "%s %(name)s %d",
        "$1",
        "é",
        "理发",
        "🧘",
        "\u202e",
        "a" * 200,
        "ab " * 66,
        "<script>alert(1)</script>",
    ],
)
def test_unusual_words_cause_no_error(api, town, words):
    response = api.get(f"/services?q={quote(words)}")
    assert response.status_code == 200, response.content
    response = api.get(f"/services?q={quote(words)}&ordering=-relevance&limit=1&offset=1")
    assert response.status_code == 200, response.content
    assert Service.objects.count() == len(TOWN)
