"""The API for calendars and their opening hours."""

from functools import partial
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookit.errors import Invalid
from bookit.tests.crowd import at_once
from bookit.tests.expect import problem
from catalog import services
from catalog.models import Calendar, OpeningHours, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def as_admin(api):
    return api.as_(AdminFactory())


@pytest.fixture
def as_provider(api, provider):
    return api.as_(provider)


@pytest.fixture
def calendar(provider):
    return CalendarFactory(provider=provider)


def hours(weekday, opens, closes):
    return {"weekday": weekday, "opens": opens, "closes": closes}


NO_BOOKINGS = {"count": 0, "ids": []}


class TestCreate:
    def test_a_calendar_needs_only_a_name(self, as_provider, provider):
        response = as_provider.post("/calendars", {"name": "Room 1"})
        assert response.status_code == 201
        shown = response.json()
        assert UUID(shown["id"]).version == 7
        assert shown == {
            "id": shown["id"],
            "name": "Room 1",
            "timezone": "UTC",
            "provider_id": str(provider.pk),
            "opening_hours": [],
            "always_open": True,
            "metadata": {},
            "created_at": shown["created_at"],
            "updated_at": shown["updated_at"],
        }
        assert response["Location"] == f"http://testserver/calendars/{shown['id']}"
        assert as_provider.get(response["Location"]).json() == shown

    @pytest.mark.parametrize(
        ("spans", "always_open"),
        [
            ([], True),
            ([hours(0, "09:00", "17:00")], False),
            ([hours(day, "00:00", "24:00") for day in range(7)], True),
            ([hours(day, "00:00", "24:00") for day in range(6)], False),
            ([hours(day, "00:01", "24:00") for day in range(7)], False),
        ],
    )
    def test_a_calendar_shows_whether_it_is_always_open(self, api, as_provider, spans, always_open):
        response = as_provider.post("/calendars", {"name": "Room 1", "opening_hours": spans})
        assert response.json()["always_open"] is always_open
        assert api.get(response["Location"]).json()["always_open"] is always_open
        assert api.get("/calendars").json()["results"][0]["always_open"] is always_open
        # `always_open` is read-only, so its value in the body is ignored.
        response = as_provider.patch(
            response["Location"], {"opening_hours": [], "always_open": False}
        )
        assert response.json()["always_open"] is True

    def test_opening_hours_are_shown_in_order(self, as_provider):
        shown = as_provider.post(
            "/calendars",
            {
                "name": "Room 1",
                "timezone": "America/New_York",
                "opening_hours": [
                    hours(6, "10:00", "24:00"),
                    hours(0, "13:00", "17:30"),
                    hours(0, "09:00", "13:00"),
                    hours(3, "00:00", "00:01"),
                ],
            },
        ).json()
        assert shown["timezone"] == "America/New_York"
        assert shown["opening_hours"] == [
            hours(0, "09:00", "13:00"),
            hours(0, "13:00", "17:30"),
            hours(3, "00:00", "00:01"),
            hours(6, "10:00", "24:00"),
        ]

    def test_an_admin_can_create_a_calendar_with_or_without_a_provider(self, as_admin, provider):
        other_admin = AdminFactory()
        for body, expected in (
            ({}, None),
            ({"provider_id": None}, None),
            ({"provider_id": str(provider.pk)}, str(provider.pk)),
            ({"provider_id": str(other_admin.pk)}, str(other_admin.pk)),
        ):
            shown = as_admin.post("/calendars", {"name": "Room", **body}).json()
            assert shown["provider_id"] == expected

    def test_a_provider_can_create_calendars_only_for_themselves(self, as_provider, provider):
        own = {"name": "Mine", "provider_id": str(provider.pk)}
        assert as_provider.post("/calendars", own).status_code == 201
        for provider_id in (None, str(ProviderFactory().pk), str(uuid4())):
            response = as_provider.post("/calendars", {"name": "X", "provider_id": provider_id})
            problem(response, 403, "permission_denied")
        assert Calendar.objects.count() == 1

    @pytest.mark.parametrize(
        "make_user",
        [
            lambda: UserFactory(),
            lambda: ProviderFactory(is_active=False),
            lambda: ProviderFactory.build(),
        ],
        ids=["a customer", "an inactive provider", "a user that does not exist"],
    )
    def test_provider_id_must_be_the_id_of_an_active_provider_or_admin(self, as_admin, make_user):
        response = as_admin.post("/calendars", {"name": "X", "provider_id": str(make_user().pk)})
        problem(response, 400, "validation_error", "provider_id")


MONDAY = hours(0, "09:00", "17:00")
# Each row contains a field, an invalid value for it, and the only field that the errors name. If
# the last item is None, the test does not check which fields the errors name.
INVALID_FIELDS = [
    ("name", None, "name"),
    ("name", "", "name"),
    ("name", "n" * 201, "name"),
    ("name", "\0", "name"),
    ("timezone", "Mars/Olympus", "timezone"),
    ("timezone", "../../etc/passwd", "timezone"),
    ("timezone", "", "timezone"),
    ("timezone", None, "timezone"),
    ("timezone", "europe/paris", "timezone"),
    ("timezone", ["UTC"], "timezone"),
    ("provider_id", "me", "provider_id"),
    ("provider_id", 5, "provider_id"),
    ("opening_hours", None, "opening_hours"),
    ("opening_hours", "always", "opening_hours"),
    ("opening_hours", {"0": "09:00-17:00"}, "opening_hours"),
    ("opening_hours", [MONDAY] * 101, "opening_hours"),
    ("opening_hours", ["09:00"], "opening_hours.0"),
    ("opening_hours", [None], "opening_hours.0"),
    ("opening_hours", [MONDAY, {**MONDAY, "weekday": 7}], "opening_hours.1.weekday"),
    ("opening_hours", [{**MONDAY, "weekday": -1}], "opening_hours.0.weekday"),
    ("opening_hours", [{**MONDAY, "weekday": "Monday"}], "opening_hours.0.weekday"),
    ("opening_hours", [{**MONDAY, "weekday": None}], "opening_hours.0.weekday"),
    ("opening_hours", [{"opens": "09:00", "closes": "17:00"}], "opening_hours.0.weekday"),
    ("opening_hours", [{"weekday": 0, "closes": "17:00"}], "opening_hours.0.opens"),
    ("opening_hours", [{"weekday": 0, "opens": "09:00"}], "opening_hours.0.closes"),
    ("opening_hours", [{**MONDAY, "opens": "9:00"}], "opening_hours.0.opens"),
    ("opening_hours", [{**MONDAY, "opens": "09:00:00"}], "opening_hours.0.opens"),
    ("opening_hours", [{**MONDAY, "opens": "09:60"}], "opening_hours.0.opens"),
    ("opening_hours", [{**MONDAY, "opens": "0９:00"}], "opening_hours.0.opens"),  # noqa: RUF001
    ("opening_hours", [{**MONDAY, "opens": 540}], "opening_hours.0.opens"),
    ("opening_hours", [{**MONDAY, "opens": None}], "opening_hours.0.opens"),
    ("opening_hours", [{**MONDAY, "opens": ["09:00"]}], "opening_hours.0.opens"),
    ("opening_hours", [{**MONDAY, "closes": "24:01"}], "opening_hours.0.closes"),
    ("opening_hours", [{**MONDAY, "closes": "25:00"}], "opening_hours.0.closes"),
    ("opening_hours", [{**MONDAY, "closes": "09:00"}], "opening_hours.0.closes"),
    ("opening_hours", [{**MONDAY, "closes": "08:00"}], "opening_hours.0.closes"),
    ("opening_hours", [{**MONDAY, "opens": "24:00", "closes": "24:00"}], "opening_hours.0.closes"),
    ("opening_hours", [{**MONDAY, "day": "Monday"}], "opening_hours.0.day"),
    ("opening_hours", [MONDAY, MONDAY], "opening_hours"),
    ("opening_hours", [MONDAY, hours(0, "16:59", "20:00")], "opening_hours"),
    ("opening_hours", [hours(0, "16:59", "20:00"), hours(1, "1:", "2:"), MONDAY], None),
    ("colour", "red", "colour"),
    ("hours", [], "hours"),
]


@pytest.mark.parametrize(("field", "value", "named_field"), INVALID_FIELDS)
def test_the_error_names_an_invalid_field_and_nothing_is_stored(
    as_admin, calendar, field, value, named_field
):
    before = list(Calendar.objects.values())
    for response in (
        as_admin.post("/calendars", {"name": "Room", field: value}),
        as_admin.patch(f"/calendars/{calendar.pk}", {field: value}),
    ):
        problem(response, 400, "validation_error", *([named_field] if named_field else []))
    assert list(Calendar.objects.values()) == before
    assert not OpeningHours.objects.exists()


class TestChange:
    def test_changing_a_field_leaves_other_fields_unchanged(self, as_provider, calendar):
        as_provider.patch(f"/calendars/{calendar.pk}", {"opening_hours": [MONDAY]})
        before = as_provider.get(f"/calendars/{calendar.pk}").json()
        assert before["opening_hours"] == [MONDAY]
        assert before["always_open"] is False
        for change in (
            {"name": "Room 2"},
            {"timezone": "Asia/Kolkata"},
            {"opening_hours": [hours(2, "10:00", "12:00"), hours(2, "12:00", "14:00")]},
            {"opening_hours": []},
        ):
            before = {**before, **change}
            before["always_open"] = not before["opening_hours"]
            response = as_provider.patch(f"/calendars/{calendar.pk}", change)
            before["updated_at"] = response.json()["updated_at"]
            shown = {**before, "affected_bookings": NO_BOOKINGS}
            assert (response.status_code, response.json()) == (200, shown)
            assert as_provider.get(f"/calendars/{calendar.pk}").json() == before

    def test_a_span_may_begin_when_another_span_ends(self, as_provider, calendar):
        spans = [hours(0, "00:00", "12:00"), hours(0, "12:00", "24:00"), hours(1, "00:00", "24:00")]
        response = as_provider.patch(f"/calendars/{calendar.pk}", {"opening_hours": spans})
        assert response.json()["opening_hours"] == spans

    def test_every_day_may_have_the_same_hours(self, as_provider, calendar):
        spans = [hours(weekday, "09:00", "17:00") for weekday in range(7)]
        response = as_provider.patch(f"/calendars/{calendar.pk}", {"opening_hours": spans})
        assert response.json()["opening_hours"] == spans

    def test_a_client_may_send_back_what_it_has_read(self, as_provider, calendar):
        as_provider.patch(f"/calendars/{calendar.pk}", {"opening_hours": [MONDAY]})
        shown = as_provider.get(f"/calendars/{calendar.pk}").json()
        for _ in range(2):
            response = as_provider.patch(f"/calendars/{calendar.pk}", shown)
            shown = {**shown, "affected_bookings": NO_BOOKINGS}
            shown["updated_at"] = response.json()["updated_at"]
            assert (response.status_code, response.json()) == (200, shown)

    def test_a_client_may_send_back_a_provider_who_is_no_longer_active(
        self, as_admin, calendar, provider
    ):
        provider.is_active = False
        provider.save()
        shown = as_admin.get(f"/calendars/{calendar.pk}").json()
        response = as_admin.patch(f"/calendars/{calendar.pk}", {**shown, "name": "Vacant"})
        changed = {**shown, "name": "Vacant", "affected_bookings": NO_BOOKINGS}
        changed["updated_at"] = response.json()["updated_at"]
        assert (response.status_code, response.json()) == (200, changed)

    def test_an_admin_can_change_or_remove_the_provider_of_a_calendar(self, as_admin, calendar):
        other = ProviderFactory()
        for provider_id in (str(other.pk), None):
            response = as_admin.patch(f"/calendars/{calendar.pk}", {"provider_id": provider_id})
            assert response.json()["provider_id"] == provider_id

    def test_a_provider_cannot_give_their_calendar_away(self, as_provider, calendar, provider):
        for provider_id in (str(ProviderFactory().pk), None):
            response = as_provider.patch(
                f"/calendars/{calendar.pk}", {"provider_id": provider_id, "name": "Taken"}
            )
            problem(response, 403, "permission_denied")
        calendar.refresh_from_db()
        assert calendar.provider == provider
        assert calendar.name != "Taken"

    def test_other_users_cannot_change_a_calendar(self, api, calendar):
        for stranger in (ProviderFactory(), UserFactory()):
            response = api.as_(stranger).patch(f"/calendars/{calendar.pk}", {"name": "Mine"})
            problem(response, 403, "permission_denied")

    def test_admins_but_not_providers_can_change_a_calendar_without_a_provider(self, api, as_admin):
        calendar = CalendarFactory()
        response = api.as_(ProviderFactory()).patch(f"/calendars/{calendar.pk}", {"name": "Mine"})
        problem(response, 403, "permission_denied")
        assert as_admin.patch(f"/calendars/{calendar.pk}", {"name": "Ours"}).status_code == 200


class TestDelete:
    def test_a_calendar_is_deleted_with_its_opening_hours(self, api, as_provider, calendar):
        as_provider.patch(f"/calendars/{calendar.pk}", {"opening_hours": [MONDAY]})
        response = as_provider.delete(f"/calendars/{calendar.pk}")
        assert (response.status_code, response.content) == (204, b"")
        problem(api.get(f"/calendars/{calendar.pk}"), 404, "not_found")
        assert not OpeningHours.objects.exists()

    def test_a_calendar_with_services_cannot_be_deleted(self, as_provider, calendar):
        as_provider.patch(f"/calendars/{calendar.pk}", {"opening_hours": [MONDAY]})
        ServiceFactory(calendar=calendar, is_active=False)
        problem(as_provider.delete(f"/calendars/{calendar.pk}"), 409, "service_in_use")
        assert OpeningHours.objects.count() == 1


class TestList:
    def test_everybody_can_see_all_calendars_ordered_by_name(self, api):
        for name in ("c", "a", "b"):
            CalendarFactory(name=name)
        rows = api.get("/calendars").json()["results"]
        assert [row["name"] for row in rows] == ["a", "b", "c"]
        assert rows[0] == api.get(f"/calendars/{rows[0]['id']}").json()

    def test_calendars_can_be_filtered_by_provider(self, api, calendar, provider):
        CalendarFactory()
        shown = api.get(f"/calendars?provider_id={provider.pk}").json()
        assert [row["id"] for row in shown["results"]] == [str(calendar.pk)]
        assert api.get(f"/calendars?provider_id={uuid4()}").json()["count"] == 0

    def test_calendars_can_be_ordered(self, api):
        for name in ("b", "a"):
            CalendarFactory(name=name, created_at=timezone.now())

        def names(ordering):
            rows = api.get(f"/calendars?ordering={ordering}").json()["results"]
            return [row["name"] for row in rows]

        assert names("name") == names("-created_at") == ["a", "b"]
        assert names("-name") == names("created_at") == ["b", "a"]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("provider_id=me", "provider_id"),
            ("ordering=timezone", "ordering"),
            ("name=x", "name"),
            ("cursor=", "cursor"),
        ],
    )
    def test_the_error_names_the_invalid_parameter(self, api, query, field):
        problem(api.get(f"/calendars?{query}"), 400, "validation_error", field)


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_either_a_calendar_is_deleted_or_a_service_is_created_on_it(self):
        admin = AdminFactory()
        for _ in range(30):
            calendar = CalendarFactory()
            deleted, created = at_once(
                [
                    partial(services.delete_calendar, calendar_id=calendar.pk, actor=admin),
                    partial(
                        services.create_service,
                        actor=admin,
                        at=timezone.now(),
                        calendar_id=calendar.pk,
                        title="Haircut",
                        price=20,
                        duration_minutes=30,
                    ),
                ]
            )
            if deleted.error:
                assert isinstance(deleted.error, services.ServiceInUse)
                assert created.error is None
            else:
                assert isinstance(created.error, Invalid)
                assert not Service.objects.filter(calendar_id=calendar.pk).exists()

    def test_either_a_calendar_is_deleted_or_a_service_is_moved_to_it(self):
        admin = AdminFactory()
        for _ in range(30):
            calendar, service = CalendarFactory(), ServiceFactory()
            deleted, moved = at_once(
                [
                    partial(services.delete_calendar, calendar_id=calendar.pk, actor=admin),
                    partial(
                        services.update_service,
                        service_id=service.pk,
                        actor=admin,
                        changes={"calendar_id": calendar.pk},
                    ),
                ]
            )
            if deleted.error:
                assert isinstance(deleted.error, services.ServiceInUse)
                assert moved.error is None
            else:
                assert isinstance(moved.error, Invalid)

    def test_only_one_of_several_concurrent_changes_to_opening_hours_is_kept(self):
        admin, calendar = AdminFactory(), CalendarFactory()
        changes = [[{"weekday": 0, "opens": 540, "closes": 600 + number}] for number in range(8)]
        outcomes = at_once(
            [
                partial(
                    services.update_calendar,
                    calendar_id=calendar.pk,
                    actor=admin,
                    changes={"opening_hours": spans},
                    at=timezone.now(),
                )
                for spans in changes
            ]
        )
        assert [outcome.error for outcome in outcomes] == [None] * 8
        assert OpeningHours.objects.count() == 1

    def test_concurrent_request_bodies_are_not_mixed_up(self, as_admin):
        valid = [
            {
                "name": f"Room {number}",
                "timezone": "Asia/Tokyo" if number % 2 else "UTC",
                "opening_hours": [hours(number % 7, f"{number:02}:00", f"{number:02}:30")],
            }
            for number in range(20)
        ]
        invalid = [
            {"name": f"Room {number}", "opening_hours": [MONDAY] * number + [{"opens": "x"}]}
            for number in range(20)
        ]
        for _ in range(3):
            outcomes = at_once(
                [partial(as_admin.post, "/calendars", body) for body in [*valid, *invalid]]
            )
            responses = [outcome.value for outcome in outcomes]
            for body, response in zip(valid, responses[:20], strict=True):
                assert body.items() <= response.json().items()
            for number, response in enumerate(responses[20:]):
                fields = {error["field"] for error in response.json()["errors"]}
                assert {field.rpartition(".")[0] for field in fields} == {f"opening_hours.{number}"}
