"""The categories of services, and the filter by category."""

from functools import partial

import pytest
from django.db import connection, transaction

from accounts.tests.factories import AdminFactory
from bookit.tests.crowd import at_once, deadlocks, run, tally
from bookit.tests.expect import problem
from catalog import services
from catalog.categories.models import Category
from catalog.models import Service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db


def shown(api, query=""):
    rows = api.get(f"/categories{query}").json()["results"]
    assert all(row.keys() == {"name", "services"} for row in rows)
    return [(row["name"], row["services"]) for row in rows]


def counted():
    """Return the counts that the trigger maintains, and the counts of the services themselves."""
    kept = Category.objects.exclude(active_services=0).values_list("name", "active_services")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT category, count(*) FROM catalog_service"
            " WHERE is_active AND category <> '' GROUP BY 1"
        )
        return sorted(kept), sorted(cursor.fetchall())


# --- the list ---------------------------------------------------------------------------------


def test_active_services_are_counted_by_category(api):
    assert shown(api) == []
    for category in ("Yoga", "Barber", "", "Yoga"):
        ServiceFactory(category=category)
    ServiceFactory(category="Barber", is_active=False)
    ServiceFactory(category="Closed", is_active=False)
    assert shown(api) == [("Barber", 1), ("Yoga", 2)]


def test_names_that_differ_in_case_are_one_category_with_the_most_frequent_name(api):
    for category in ("yoga", "Yoga", "YOGA", "Yoga", "Écharpe", "éCHARPE"):
        ServiceFactory(category=category)
    # Both spellings of écharpe are equally frequent. The database's collation decides between them.
    [(scarf, scarves), yoga] = sorted(shown(api), reverse=True)
    assert (scarf.lower(), scarves) == ("écharpe", 2)
    assert yoga == ("Yoga", 4)
    Service.objects.filter(category__in=["Yoga", "YOGA"]).delete()
    assert ("yoga", 1) in shown(api)


def test_categories_are_listed_in_pages_and_in_order(api, django_assert_num_queries):
    for number in range(4):
        ServiceFactory.create_batch(4 - number, category=f"category {number}")
    names = [f"category {number}" for number in range(4)]
    with django_assert_num_queries(1):
        assert [name for name, _ in shown(api)] == names
    assert [name for name, _ in shown(api, "?ordering=-name")] == names[::-1]
    assert shown(api, "?ordering=services")[0] == ("category 3", 1)
    with django_assert_num_queries(2):  # A full page may not be the last, so the rows are counted.
        page = api.get("/categories?limit=2&offset=2").json()
    assert [row["name"] for row in page["results"]] == names[2:]
    assert (page["count"], page["next"]) == (4, None)
    problem(api.get("/categories?ordering=key"), 400, "validation_error", "ordering")
    problem(api.get("/categories?q=yoga"), 400, "validation_error", "q")


# --- the counts -------------------------------------------------------------------------------


def test_the_counts_follow_every_change():
    yoga = ServiceFactory.create_batch(3, category="Yoga")
    ServiceFactory(category="")
    assert counted()[0] == [("Yoga", 3)]
    changes = [
        lambda: Service.objects.filter(pk=yoga[0].pk).update(category="Pilates"),
        lambda: Service.objects.filter(pk=yoga[1].pk).update(is_active=False),
        lambda: Service.objects.filter(pk=yoga[1].pk).update(category="Pilates"),
        lambda: Service.objects.filter(pk=yoga[1].pk).update(is_active=True),
        lambda: Service.objects.update(title="Renamed", rating_sum=5, rating_count=1),
        lambda: Service.objects.update(category="Both"),
        lambda: Service.objects.filter(pk=yoga[2].pk).delete(),
        lambda: Service.objects.update(category=""),
        lambda: Service.objects.bulk_create(
            ServiceFactory.build(calendar=CalendarFactory(), category=name)
            for name in ("Yoga", "Pilates", "Yoga")
        ),
        lambda: Service.objects.all().delete(),
    ]
    for change in changes:
        change()
        kept, found = counted()
        assert kept == found


def test_a_change_that_is_rolled_back_is_not_counted():
    with transaction.atomic():
        ServiceFactory(category="Yoga")
        transaction.set_rollback(True)
    assert not Category.objects.exists()


@pytest.fixture
def _write_categories_slowly(transactional_db):
    """Pause before each category is written, so that concurrent statements overlap."""
    run(
        "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_sleep(0.05); RETURN NEW; END $$"
    )
    run(
        "CREATE TRIGGER pause BEFORE INSERT ON catalog_category"
        " FOR EACH ROW EXECUTE FUNCTION pause()"
    )
    yield
    run("DROP FUNCTION pause CASCADE")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_write_categories_slowly")
def test_concurrent_changes_are_all_counted_without_a_deadlock():
    admin = AdminFactory()
    first, second = (ServiceFactory(category=name) for name in ("First", "Second"))

    def move(service_id, category):
        changes = {"category": category, "is_active": True}
        services.update_service(service_id=service_id, actor=admin, changes=changes)

    # `update_service` would run again after a deadlock, so the outcomes do not show a deadlock.
    deadlocks_before = deadlocks()
    for round_number in range(5):
        names = ("First", "Second") if round_number % 2 else ("Second", "First")
        calls = [partial(move, first.pk, names[0]), partial(move, second.pk, names[1])]
        calls += [partial(ServiceFactory, category=name) for name in (*names, "Third")]
        assert tally(at_once(calls)) == {None: 5}
        kept, found = counted()
        assert kept == found
    assert deadlocks() == deadlocks_before


def test_the_migration_counts_the_active_services_that_exist():
    from importlib import import_module

    migration = import_module("catalog.migrations.0006_providers_and_categories")
    ServiceFactory.create_batch(2, category="Yoga")
    ServiceFactory(category="Yoga", is_active=False)
    Category.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(migration.COUNT_CATEGORIES)
    kept, found = counted()
    assert kept == found == [("Yoga", 2)]


def test_the_list_does_not_read_services(api):
    """The list reads one row for each name, however many services there are."""
    ServiceFactory(category="Yoga")
    seen = []
    with connection.execute_wrapper(lambda run, sql, *rest: seen.append(sql) or run(sql, *rest)):
        shown(api)
    assert seen
    assert not any("catalog_service" in sql for sql in seen)


# --- the filter -------------------------------------------------------------------------------


@pytest.fixture
def categorised():
    """Store services in categories. The test below names them by their titles."""
    for title, category in (
        ("cut", "Barber"),
        ("shave", "barber"),
        ("class", "Yoga, indoor"),
        ("scarf", "Écharpe"),
        ("percent", "50%_\\"),
    ):
        ServiceFactory(title=title, category=category)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("category=BARBER", ["cut", "shave"]),
        ("category=barber&category=yoga,%20INDOOR", ["class", "cut", "shave"]),
        ("category=barb", []),
        ("category=éCHARPE", ["scarf"]),
        ("category=50%25_%5C", ["percent"]),
        ("category=50%25%25%25", []),
        ("category=%20Barber%20", ["cut", "shave"]),
        ("category=Barber&q=shave", ["shave"]),
        ("category=barber&category=écharpe&q=scarf", ["scarf"]),
    ],
)
def test_services_are_filtered_by_any_of_the_categories(api, categorised, query, found):
    rows = api.get(f"/services?{query}").json()["results"]
    assert sorted(row["title"] for row in rows) == found


@pytest.mark.parametrize("path", ["/services", "/providers"])
def test_invalid_categories_and_more_than_twenty_are_refused(api, path):
    for query in (
        "category=" + "c" * 101,
        "&".join(["category=c"] * 21),
        "category=ok&category=%00",
    ):
        problem(api.get(f"{path}?{query}"), 400, "validation_error", "category")
    assert api.get(f"{path}?" + "&".join(["category=c"] * 20)).status_code == 200
