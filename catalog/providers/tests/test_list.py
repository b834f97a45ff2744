"""The public list of providers, and their profiles."""

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookit.errors import database_error_facts
from bookit.tests.expect import problem
from bookit.tests.plans import planning_without
from catalog.providers import services
from catalog.providers.filters import ProviderFilter
from catalog.providers.models import Profile
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

PICTURE = "https://example.com/rui.jpg"


@pytest.fixture
def rui():
    return ProviderFactory(name="Rui Costa")


def names(api, query=""):
    response = api.get(f"/providers{query}")
    assert response.status_code == 200, response.content
    return [row["name"] for row in response.json()["results"]]


# --- the representation -----------------------------------------------------------------------


def test_a_provider_is_shown_with_calendars_services_and_ratings(api, rui):
    chair, room = (CalendarFactory(provider=rui, name=name) for name in ("Chair", "A room"))
    cut = ServiceFactory(calendar=chair, title="Cut", rating_sum=9, rating_count=2)
    ServiceFactory(calendar=room, title="Old", is_active=False, rating_sum=4, rating_count=1)
    beard = ServiceFactory(calendar=room, title="Beard")
    Profile.objects.create(user=rui, biography="Since 1998.", picture_url=PICTURE)
    ServiceFactory(calendar__provider=ProviderFactory(), rating_sum=1, rating_count=1)
    shown = api.get(f"/providers/{rui.pk}")
    assert shown.json() == {
        "id": str(rui.pk),
        "name": "Rui Costa",
        "biography": "Since 1998.",
        "picture_url": PICTURE,
        "calendars": [
            {"id": str(room.pk), "name": "A room"},
            {"id": str(chair.pk), "name": "Chair"},
        ],
        "services": [
            {"id": str(beard.pk), "title": "Beard"},
            {"id": str(cut.pk), "title": "Cut"},
        ],
        # The reviews of the inactive service count too, because they are about this provider.
        "rating_average": 4.33,
        "rating_count": 3,
    }
    assert shown.json() in api.get("/providers").json()["results"]


def test_a_provider_without_a_profile_services_or_reviews_is_shown(api, rui):
    shown = {
        "id": str(rui.pk),
        "name": "Rui Costa",
        "biography": "",
        "picture_url": None,
        "calendars": [],
        "services": [],
        "rating_average": None,
        "rating_count": 0,
    }
    assert api.get("/providers").json()["results"] == [shown]
    assert api.get(f"/providers/{rui.pk}").json() == shown
    ServiceFactory(calendar__provider=rui)
    rated = api.get(f"/providers/{rui.pk}").json()
    assert (rated["rating_average"], rated["rating_count"]) == (None, 0)


def test_at_most_twenty_calendars_and_services_are_shown(api, rui):
    calendar = CalendarFactory(provider=rui)
    CalendarFactory.create_batch(22, provider=rui)
    ServiceFactory.create_batch(22, calendar=calendar)
    shown = api.get(f"/providers/{rui.pk}").json()
    assert (len(shown["calendars"]), len(shown["services"])) == (20, 20)


def test_active_providers_are_listed_and_admins_only_if_they_have_an_active_service(api, rui):
    listed = {"Rui Costa", "Boss with a service"}
    ServiceFactory(calendar__provider=AdminFactory(name="Boss with a service"))
    hidden = [
        AdminFactory(name="Boss"),
        CalendarFactory(provider=AdminFactory(name="Boss with a calendar")).provider,
        ServiceFactory(calendar__provider=AdminFactory(), is_active=False).calendar.provider,
        ServiceFactory(calendar__provider=UserFactory()).calendar.provider,
        ServiceFactory(calendar__provider=ProviderFactory(is_active=False)).calendar.provider,
        UserFactory(),
    ]
    assert set(names(api)) == listed
    for user in hidden:
        problem(api.get(f"/providers/{user.pk}"), 404, "not_found")
    assert set(names(api, "?q=o")) == listed


def test_no_private_data_is_shown(api, rui):
    User.objects.update(metadata={"secret": "x"})
    ServiceFactory(calendar__provider=rui, metadata={"secret": "x"})
    for path in ("/providers", f"/providers/{rui.pk}"):
        text = api.get(path).content.decode()
        assert rui.email not in text
        assert "secret" not in text
    assert names(api, f"?q={rui.email}") == []


# --- order, filters and pages -----------------------------------------------------------------


def test_providers_are_ordered_and_paged(api):
    for name in ("Carla", "Ana", "Berta"):
        ProviderFactory(name=name)
    assert names(api) == ["Ana", "Berta", "Carla"]
    assert names(api, "?ordering=-name") == ["Carla", "Berta", "Ana"]
    assert names(api, "?ordering=created_at") == ["Carla", "Ana", "Berta"]
    assert names(api, "?limit=2&page=2") == ["Carla"]
    assert api.get("/providers?limit=1").json()["count"] == 3
    problem(api.get("/providers?ordering=email"), 400, "validation_error", "ordering")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=rui", ["Rui Costa"]),
        ("q=COST", ["Rui Costa"]),
        ("q=physio", ["Ana"]),
        ("q=PHYSIO", ["Ana"]),
        ("q=ph", []),  # Biographies are searched only for three or more characters.
        ("q=50%25", ["Ana"]),
        ("q=nobody", []),
        ("category=BARBER", ["Rui Costa"]),
        ("category=barber&category=physio", ["Ana", "Rui Costa"]),
        ("category=closed", []),
        ("q=rui&category=physio", []),
    ],
)
def test_providers_are_found_by_a_text_and_by_categories(api, rui, query, found):
    ana = ProviderFactory(name="Ana")
    Profile.objects.create(user=ana, biography="A physiotherapist. 50% off.")
    ServiceFactory(calendar__provider=rui, category="Barber")
    ServiceFactory(calendar__provider=rui, category="barber")
    ServiceFactory(calendar__provider=rui, category="Closed", is_active=False)
    ServiceFactory(calendar__provider=ana, category="Physio")
    assert names(api, f"?{query}") == found


@pytest.mark.parametrize("query", ["", "&q=provider", "&category=barber", "&ordering=-created_at"])
def test_the_number_of_queries_does_not_depend_on_the_number_of_providers(
    api, query, django_assert_num_queries
):
    for number in range(6):
        calendar = CalendarFactory(provider=ProviderFactory(name=f"Provider {number}"))
        ServiceFactory.create_batch(2, calendar=calendar, category="Barber")
    with django_assert_num_queries(1):
        assert len(names(api, f"?limit=100{query}")) == 6
    # If the page is full, a second query counts the providers.
    with django_assert_num_queries(2):
        assert len(names(api, f"?limit=2{query}")) == 2


def test_showing_a_provider_takes_one_query(api, rui, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert api.get(f"/providers/{rui.pk}").status_code == 200


def test_a_page_reads_only_the_ids_of_the_providers_that_it_skips(api):
    for name in ("Ana", "Berta", "Carla"):
        ServiceFactory(calendar__provider=ProviderFactory(name=name))
    for query in ("?limit=1&offset=2", "?limit=1&page=3"):
        with CaptureQueriesContext(connection) as captured:
            assert names(api, query) == ["Carla"]
        page = captured.captured_queries[0]["sql"]
        shown, skipped = page.split(" IN (SELECT", 1)
        assert "rating_sum" in shown
        assert "OFFSET" in skipped
        assert "rating_sum" not in skipped


def test_the_list_is_read_through_an_index_in_the_order_of_names():
    """PostgreSQL uses this partial index only if the query repeats the condition of the index.

    Therefore, the roles in the query are constants; see `accounts.models.in_roles`.
    """
    rows = services.listed().order_by("name", "id")[:20]
    with planning_without("seqscan", "bitmapscan", "sort"):
        plan = rows.explain()
    assert "Index Scan using keeper_by_name" in plan
    assert "Sort" not in plan


def test_biographies_are_searched_with_an_index():
    rows = ProviderFilter().search(services.listed(), "q", ("physio", "physio"))
    with planning_without("seqscan", "indexscan"):
        assert "profile_by_biography" in rows.explain()


# --- profiles ---------------------------------------------------------------------------------


def test_a_provider_changes_their_profile(api, rui):
    client = api.as_(rui)
    shown = api.get(f"/providers/{rui.pk}").json()
    for change in (
        {"biography": "Since 1998."},
        {"picture_url": PICTURE},
        {"name": "Rui"},
        {},
        {"picture_url": None, "biography": ""},
        {"picture_url": "https://münchen.example/ä.png?size=1"},
    ):
        shown |= change
        response = client.patch("/me/provider", change)
        assert (response.status_code, response.json()) == (200, shown)
        assert api.get(f"/providers/{rui.pk}").json() == shown
    # A client can send back what it has read, which changes nothing.
    assert client.patch("/me/provider", shown).json() == shown
    assert client.get("/me").json()["name"] == "Rui"


def test_the_profile_of_an_admin_is_hidden_until_the_admin_provides_a_service(api):
    boss = AdminFactory(name="Boss")
    response = api.as_(boss).patch("/me/provider", {"biography": "I run this place."})
    assert (response.status_code, response.json()["biography"]) == (200, "I run this place.")
    problem(api.get(f"/providers/{boss.pk}"), 404, "not_found")
    ServiceFactory(calendar__provider=boss)
    assert api.get(f"/providers/{boss.pk}").json()["biography"] == "I run this place."


def test_only_a_provider_or_an_admin_can_write_a_profile(api):
    problem(api.as_(UserFactory()).patch("/me/provider", {}), 403, "permission_denied")
    problem(api.patch("/me/provider", {}), 401, "not_authenticated")
    with pytest.raises(services.Forbidden):
        services.update_profile(actor=UserFactory(), changes={"biography": "x"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("picture_url", "http://example.com/rui.jpg"),
        ("picture_url", "javascript:alert(1)"),
        ("picture_url", "data:image/png;base64,AAAA"),
        ("picture_url", "//example.com/rui.jpg"),
        ("picture_url", "https://"),
        ("picture_url", "HTTPS://example.com/rui.jpg"),
        ("picture_url", "https://example.com/a b"),
        ("picture_url", 'https://example.com/"onload="alert(1)'),
        ("picture_url", "https://user:password@example.com/rui.jpg"),
        ("picture_url", "https://example.com/" + "x" * 500),
        ("picture_url", ""),
        ("picture_url", 5),
        ("biography", None),
        ("biography", "x" * 2001),
        ("biography", "a\0b"),
        ("name", ""),
        ("name", None),
        ("surname", "Costa"),
    ],
)
def test_an_invalid_profile_is_refused(api, rui, field, value):
    response = api.as_(rui).patch("/me/provider", {field: value})
    problem(response, 400, "validation_error", field)
    assert not Profile.objects.exists()


def test_the_database_refuses_a_picture_without_https(rui):
    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        Profile.objects.create(user=rui, picture_url="http://example.com/rui.jpg")
    assert database_error_facts(refused.value)[1] == "profile_picture_https"


def test_a_former_provider_is_not_shown(api, rui):
    api.as_(rui).patch("/me/provider", {"biography": "Since 1998."})
    User.objects.filter(pk=rui.pk).update(role="user")
    problem(api.get(f"/providers/{rui.pk}"), 404, "not_found")
    assert names(api) == []
    problem(api.as_(rui).patch("/me/provider", {}), 403, "permission_denied")


def test_the_admin_site_searches_profiles_by_provider_and_biography(client, rui):
    client.force_login(AdminFactory())
    Profile.objects.create(user=rui, biography="A physio since 1998.")
    eva = ProviderFactory(name="Eva Lima", email="eva@example.com")
    Profile.objects.create(user=eva, biography="")
    for words, people in [
        ("", {rui, eva}),
        ("costa", {rui}),
        ("physio 1998", {rui}),
        ("eva@example.com", {eva}),
        ("a", {rui}),  # One or two letters are found only at the start of a word.
        ("nobody", set()),
    ]:
        with CaptureQueriesContext(connection) as queries:
            response = client.get("/admin/catalog/profile/", {"q": words})
        assert {row.user for row in response.context["cl"].result_list} == people, words
        # Users and profiles are searched separately, so that each search can use an index.
        searches = [each["sql"] for each in queries if "UNION ALL" in each["sql"]]
        assert len(searches) == (1 if words else 0)


def test_an_admin_corrects_a_profile_in_the_admin_site(client, api, rui):
    client.force_login(AdminFactory())
    Profile.objects.create(user=rui, biography="Rude.", picture_url=PICTURE)
    path = f"/admin/catalog/profile/{rui.pk}/change/"
    assert client.post(path, {"biography": "Polite.", "picture_url": ""}).status_code == 302
    shown = api.get(f"/providers/{rui.pk}").json()
    assert (shown["biography"], shown["picture_url"]) == ("Polite.", None)
