"""The cost of a search for services is limited, whatever the words are."""

from urllib.parse import quote

import pytest
from django.db import connection

from bookit.api.pagination import DEFAULT_LIMIT
from bookit.tests.crowd import ask, run

pytestmark = pytest.mark.django_db

# Searches that are expensive if they are implemented naively: words that every service has, words
# that no service has, and questions that no index can answer.
NASTY = [
    "a",
    "b",
    "the",
    "common",
    "common word",
    "b c d e f g h",
    "-a",
    "-common",
    "common -word",
    "rare -common",
    '"common word"',
    '"word common"',
    "common or word or b or c or d",
    "hiarcut",
    "comon",
    "everywhre",
    "commo",
    "xyzzy plugh",
    "x" * 200,
    " ".join(f"w{number}" for number in range(40)),
    " ".join("bcdfghjklmnpqrstvwxz") * 5,
    "b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s",
    "b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q-r-s",
    "%",
    "理发",
]
# Parameters that select a page of the matches.
PAGES = ["", "&ordering=relevance", "&ordering=title", "&ordering=-price", "&page=40"]
NARROWED = ["&category=Sport", "&price_max=20", "&active=any&mode=open"]
# Some tests let a search rank only this many services.
MAX_RANKED_HERE = 100

# Adds a service with a description of 9 kB to each of up to fifty calendars without a service.
# Each description contains all words from w0 to w999, because 7919 and 1000 have no common factor.
#
# Parameters: none.
# Columns: none.
FIFTY_MORE = """
INSERT INTO catalog_service (id, calendar_id, title, description, category, price, currency,
    duration_minutes, capacity, mode, requires_confirmation, buffer_before_minutes,
    buffer_after_minutes, min_notice_minutes, cancellation_notice_minutes, is_active, rating_sum,
    rating_count)
SELECT gen_random_uuid(), id, 'Common service ' || name, (
        SELECT 'common word everywhere b c d e f g h ' ||
            string_agg('w' || (hash %% 1000 + n * 7919) %% 1000, ' ')
        FROM generate_series(1, 1800) AS n
    ), CASE hash %% 3 WHEN 0 THEN 'Sport' ELSE 'Barber' END, hash %% 90, 'EUR', 30, 1, 'open',
    false, 0, 0, 0, 0, true, 0, 0
FROM (SELECT *, abs(hashtext(name)) AS hash FROM catalog_calendar) AS calendar
WHERE NOT EXISTS (SELECT FROM catalog_service WHERE calendar_id = calendar.id)
LIMIT 50
"""


@pytest.fixture(scope="module")
def crowded_town(django_db_setup, django_db_blocker):
    """A town of 1,000 services whose descriptions are 9 kB long, for all tests of this module."""
    with django_db_blocker.unblock():
        # The statistics say that there are no calendars, as in a new database. The planner would
        # ignore the statistics of a table without pages. The deleted row leaves a page.
        run("INSERT INTO catalog_calendar (id, name, timezone) SELECT gen_random_uuid(), '', 'UTC'")
        run("DELETE FROM catalog_calendar")
        run("ANALYZE catalog_calendar")
        run(
            """
            INSERT INTO catalog_calendar (id, name, timezone)
            SELECT gen_random_uuid(), 'Chair ' || n, 'UTC' FROM generate_series(1, 1000) AS n
            """
        )
        # Fifty at a time, because of the statement timeout.
        while run(FIFTY_MORE):
            pass
        run("UPDATE catalog_service SET title = 'Haircut' WHERE title = 'Common service Chair 7'")
        run("ANALYZE catalog_service")
    yield
    with django_db_blocker.unblock():
        run("TRUNCATE catalog_calendar, catalog_category, catalog_word CASCADE")


def blocks_of(statements):
    """Return the number of blocks that PostgreSQL reads for some statements."""
    total = 0
    with connection.cursor() as cursor:
        for sql, parameters in statements:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}", parameters)
            [[plan]] = cursor.fetchone()
            total += plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return total


def plans_of(statements):
    """Run some statements, and return the parts of their plans that were executed."""
    parts = []
    with connection.cursor() as cursor:
        for sql, parameters in statements:
            cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", parameters)
            [[plan]] = cursor.fetchone()
            waiting = [plan["Plan"]]
            while waiting:
                part = waiting.pop()
                waiting += part.get("Plans", [])
                parts += [part] if part["Actual Loops"] else []
    return parts


def statements_of(api, address):
    """Return the statements of a request that read the catalog, with their parameters."""
    seen = []

    def note(execute, sql, parameters, many, context):
        seen.append((sql, parameters))
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(note):
        answer = api.get(address)
    assert answer.status_code == 200, answer.content
    return [(sql, values) for sql, values in seen if "SELECT" in sql and "catalog" in sql]


def titles(api, words):
    return [row["title"] for row in api.get(f"/services?q={quote(words)}").json()["results"]]


class TestBlocks:
    """The tests count blocks instead of milliseconds: the number is the same on every machine.

    PostgreSQL reads about five blocks for the words of a service, and 5,000 for 1,000 services.
    """

    @pytest.mark.parametrize("words", NASTY)
    def test_no_search_reads_the_words_of_all_services(self, api, crowded_town, words):
        table = ask("SELECT pg_relation_size('catalog_service') / 8192")
        for more in [*PAGES, *NARROWED]:
            ran = statements_of(api, f"/services?q={quote(words)}{more}")
            # A page, the count, similar words, the corrected page, and the rows of the page.
            assert len(ran) <= 5
            # Enough for reading the table twice, indexes, and the rows of the page.
            assert blocks_of(ran) < 2 * table + 500, more

    def test_control_a_phrase_search_reads_the_words_of_all_services(self, crowded_town):
        table = ask("SELECT pg_relation_size('catalog_service') / 8192")
        sql = "SELECT count(*) FROM catalog_service WHERE search @@ to_tsquery('english', %s)"
        assert blocks_of([(sql, ["common<->word"])]) > 2 * (2 * table + 500)


class TestPlans:
    """The tests count the rows in parts of a plan: this number is the same on every machine."""

    @pytest.mark.parametrize("words", ["common", "common word", "b c d e f g", "everywhere"])
    def test_a_page_reads_all_matches_only_once(self, api, crowded_town, limit_search, words):
        limit_search("MAX_RANKED", MAX_RANKED_HERE)
        for page in PAGES:
            parts = plans_of(statements_of(api, f"/services?q={quote(words)}{page}"))
            # Other scans read the rows of the page by their ids.
            scans = [part for part in parts if "search @@" in part.get("Recheck Cond", "")]
            everything = [part for part in scans if part["Actual Rows"] > MAX_RANKED_HERE]
            assert len(everything) == 1, page
            assert len(scans) <= 2, page

    @pytest.mark.parametrize(
        ("order", "expected"),
        [
            # Services with the words in the title fill the page.
            ("", MAX_RANKED_HERE),
            ("&ordering=-relevance,title", MAX_RANKED_HERE),
            # Services without the words in the title fill the page.
            ("&ordering=relevance", DEFAULT_LIMIT),
            # Services of both groups are on the page or before it.
            ("&ordering=title,relevance", MAX_RANKED_HERE + DEFAULT_LIMIT),
            ("&page=6", MAX_RANKED_HERE + 6 * DEFAULT_LIMIT),
        ],
    )
    def test_only_rows_that_can_be_on_the_page_are_ranked_and_sorted(
        self, api, crowded_town, limit_search, order, expected
    ):
        limit_search("MAX_RANKED", MAX_RANKED_HERE)
        parts = plans_of(statements_of(api, f"/services?q=common{order}"))
        [ranked] = [part for part in parts if part.get("Alias") == "ranked"]
        assert ranked["Actual Rows"] == expected

    @pytest.mark.parametrize("order", ["", "&page=3"])
    def test_matches_are_not_counted_again_after_an_estimate(
        self, api, crowded_town, limit_search, order
    ):
        limit_search("MAX_FOUND", 500)
        limit_search("MAX_RANKED", MAX_RANKED_HERE)
        reads = []
        for _time in range(2):
            parts = plans_of(statements_of(api, f"/services?q=common{order}"))
            # A bitmap scan may also read the rows of the page, but with another condition.
            found = [part for part in parts if "@@" in part.get("Recheck Cond", "")]
            reads.append(sum(part["Actual Rows"] for part in found))
        assert reads == [501 + MAX_RANKED_HERE, MAX_RANKED_HERE]

    def test_the_first_page_of_a_frequent_word_reads_only_the_first_services(
        self, api, crowded_town, limit_search
    ):
        limit_search("MAX_FOUND", 500)
        limit_search("FREQUENT", 10)
        limit_search("MAX_READ", 100)
        for order in ("title", "-price", "created_at", "price,-title"):
            url = f"/services?q=common&ordering={order}"
            assert api.get(url).status_code == 200
            [(text, _values), *_others] = ran = statements_of(api, url)
            assert "LIMIT 100" in text
            assert not [part for part in plans_of(ran) if "@@" in part.get("Recheck Cond", "")]
            first = [part for part in plans_of(ran) if "@@" in part.get("Filter", "")]
            assert sum(part["Actual Rows"] for part in first) == DEFAULT_LIMIT


class TestResults:
    def test_matches_are_found_in_the_crowd(self, api, crowded_town):
        assert titles(api, "haircut") == titles(api, "hiarcut") == ["Haircut"]
        assert titles(api, "haercutt") == ["Haircut"]
        page = api.get("/services?q=common&limit=1").json()
        assert page["count"] == 1000
        assert api.get("/services?q=common%20word&limit=1&page=900").json()["count"] == 1000

    def test_pages_do_not_overlap(self, api, crowded_town):
        pages = [api.get(f"/services?q=word&limit=100&page={page}").json() for page in (1, 2, 10)]
        found = [row["id"] for page in pages for row in page["results"]]
        assert len(set(found)) == 300
