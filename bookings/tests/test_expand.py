"""`expand` adds the resources that bookings and slots refer to, in a fixed number of queries."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory, staff
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.tests.expect import problem
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
EVERYTHING = "service,calendar,slot,user"
# For each list, who reads it, its path, and all names that can be expanded.
LISTS = [
    ("owner", "/bookings", EVERYTHING),
    ("provider", "/bookings?scope=provider", EVERYTHING),
    ("admin", "/bookings?cursor=", EVERYTHING),
    ("owner", "/slots", "service,calendar"),
]


@pytest.fixture
def people():
    return {
        "owner": UserFactory(phone="+351 1"),
        "provider": ProviderFactory(),
        "admin": AdminFactory(),
    }


def grow(people, rows):
    """Add `rows` bookings in slots and `rows` without slots, each for a service of its own."""
    for number in range(rows):
        calendar = CalendarFactory(provider=people["provider"])
        slot = SlotFactory(
            service=ServiceFactory(calendar=calendar, capacity=5),
            start_time=TUESDAY + number * HOUR,
        )
        BookingFactory(
            user=people["owner"], service=slot.service, slot=slot, start_time=slot.start_time
        )
        BookingFactory(
            user=people["owner"],
            service=ServiceFactory(calendar=CalendarFactory(provider=people["provider"])),
            start_time=TUESDAY + number * HOUR,
        )


def test_a_list_shows_the_expanded_resources_as_their_own_endpoints_do(api, people):
    grow(people, 2)
    for who, path, names in LISTS:
        separator = "&" if "?" in path else "?"
        client = api.as_(people[who])
        rows = client.get(f"{path}{separator}expand={names}").json()["results"]
        plain = client.get(path).json()["results"]
        assert len(rows) == len(plain) >= 2
        for row, bare in zip(rows, plain, strict=True):
            assert bare.items() <= row.items()
            added = {name: row[name] for name in row.keys() - bare.keys()}
            expected = {
                name: api.get(f"/{name}s/{row[f'{name}_id']}").json()
                for name in ("service", "calendar", "slot")
                if name in names and row[f"{name}_id"]
            }
            if "slot" in names and row["slot_id"] is None:
                expected["slot"] = None
            if "user" in names and who != "owner":
                user = people["owner"]
                expected["user"] = {
                    "id": str(user.pk),
                    "name": user.name,
                    "email": user.email,
                    "phone": "+351 1",
                }
            assert added == expected


def test_a_single_resource_is_expanded_as_in_the_list(api, people):
    grow(people, 1)
    client = api.as_(people["admin"])
    for kind, names in (("bookings", EVERYTHING), ("slots", "calendar,service")):
        for row in client.get(f"/{kind}?expand={names}").json()["results"]:
            assert client.get(f"/{kind}/{row['id']}?expand={names}").json() == row


def test_expanding_takes_one_query_for_each_name_whatever_the_number_of_rows(api, people):
    grow(people, 2)
    counts = []
    for _ in range(2):
        for who, path, names in LISTS:
            client = api.as_(people[who])
            separator = "&" if "?" in path else "?"
            found = []
            for query in ("", f"&expand={names}"):
                with CaptureQueriesContext(connection) as queries:
                    response = client.get(f"{path}{separator}limit=100{query}")
                assert response.status_code == 200
                found.append(len(queries))
            counts.append((path, found[1] - found[0], found[0]))
        grow(people, 10)
    few, many = counts[: len(counts) // 2], counts[len(counts) // 2 :]
    assert few == many
    # The owner reads the first list, but may not see users, so no query fetches users.
    assert [added for _, added, _ in few] == [3, 4, 4, 2]


def test_the_provider_and_admins_see_the_user_but_the_owner_does_not(api, people):
    grow(people, 1)
    elsewhere = BookingFactory(user=people["provider"], start_time=TUESDAY + 9 * HOUR)
    [first, *_] = api.as_(people["owner"]).get("/bookings").json()["results"]
    for who, shown in (("owner", False), ("provider", True), ("admin", True)):
        content = api.as_(people[who]).get(f"/bookings/{first['id']}?expand=user").json()
        assert ("user" in content) == shown
    # The provider is the customer of this booking, and the calendar is not theirs.
    client = api.as_(people["provider"])
    assert "user" not in client.get(f"/bookings/{elsewhere.pk}?expand=user").json()
    [row] = client.get("/bookings?expand=user,service").json()["results"]
    assert "user" not in row
    assert row["service"]["id"] == str(elsewhere.service_id)


def test_staff_who_may_see_all_bookings_see_the_users(api, people):
    booking = BookingFactory(user=people["owner"])
    receptionist = api.as_(staff(["bookings.view_booking"]))
    shown = receptionist.get(f"/bookings/{booking.pk}?expand=user").json()
    assert shown["user"]["email"] == people["owner"].email
    [row] = receptionist.get("/bookings?expand=user").json()["results"]
    assert row["user"] == shown["user"]
    # Staff who may only change bookings do not see the users.
    own = BookingFactory(user=staff(["bookings.change_booking"]), start_time=TUESDAY + 9 * HOUR)
    assert "user" not in api.as_(own.user).get(f"/bookings/{own.pk}?expand=user").json()


def test_the_user_is_hidden_from_a_provider_who_was_demoted(api, people):
    owner = people["owner"]
    own = BookingFactory(
        user=people["provider"],
        service=ServiceFactory(calendar=CalendarFactory(provider=people["provider"])),
        start_time=TUESDAY + 9 * HOUR,
    )
    client = api.as_(people["provider"])
    assert "user" in client.get(f"/bookings/{own.pk}?expand=user").json()
    people["provider"].role = owner.role
    people["provider"].save()
    assert "user" not in client.get(f"/bookings/{own.pk}?expand=user").json()


@pytest.mark.parametrize("path", ["/bookings", "/bookings/{booking}", "/slots", "/slots/{slot}"])
@pytest.mark.parametrize(
    "names", ["review", "service,review", "service,", "Service", "service%20", "user__password"]
)
def test_an_unknown_name_is_refused(api, people, path, names):
    booking = BookingFactory(user=people["owner"])
    path = path.format(booking=booking.pk, slot=SlotFactory().pk)
    response = api.as_(people["owner"]).get(f"{path}?expand={names}")
    content = problem(response, 400, "validation_error", "expand")
    assert "calendar, service" in content["errors"][0]["message"]


@pytest.mark.parametrize("name", ["slot", "user"])
def test_a_slot_has_no_slot_or_user_to_expand(api, name):
    problem(api.get(f"/slots?expand={name}"), 400, "validation_error", "expand")


def test_expand_and_its_names_can_be_repeated(api, people):
    grow(people, 1)
    client = api.as_(people["owner"])
    twice = client.get("/bookings?expand=service,service&expand=calendar").json()
    assert twice == client.get("/bookings?expand=calendar,service").json()


def test_the_pages_of_an_expanded_list_are_expanded(api, people):
    grow(people, 2)
    client = api.as_(people["admin"])
    for query in ("limit=1", "limit=1&cursor=", "limit=1&page=1"):
        page = client.get(f"/bookings?{query}&expand=service").json()
        for _ in range(3):
            page = client.get(page["next"]).json()
            assert "service" in page["results"][0]


def test_permission_is_checked_before_the_names_to_expand(api, people):
    booking = BookingFactory(user=people["owner"])
    path = f"/bookings/{booking.pk}?expand=review"
    problem(api.get(path), 401, "not_authenticated")
    problem(api.as_(UserFactory()).get(path), 403, "permission_denied")


@pytest.mark.parametrize("method", ["post", "patch"])
def test_only_reads_can_be_expanded(api, people, method):
    booking = BookingFactory(user=people["owner"])
    path = "/bookings" if method == "post" else f"/bookings/{booking.pk}"
    response = getattr(api.as_(people["owner"]), method)(f"{path}?expand=service", {})
    problem(response, 400, "validation_error", "expand")


def test_a_client_can_send_back_what_it_has_read_with_expand(api, people):
    grow(people, 1)
    client = api.as_(people["admin"])
    for kind, names in (("bookings", EVERYTHING), ("slots", "service,calendar")):
        for row in client.get(f"/{kind}?expand={names}").json()["results"]:
            response = client.patch(f"/{kind}/{row['id']}", row)
            assert response.status_code == 200, response.content
    # `row` is the last slot.
    new = {**row, "start_time": (timezone.now() + timedelta(days=30)).isoformat()}
    assert client.post("/slots", new).status_code == 201


def test_an_expanded_field_that_is_not_an_object_is_refused(api, people):
    booking = BookingFactory(user=people["owner"])
    for value in ("x", 5, [], True):
        response = api.as_(people["owner"]).patch(f"/bookings/{booking.pk}", {"service": value})
        problem(response, 400, "validation_error", "service")
