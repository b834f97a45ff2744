"""The API for services."""

from datetime import timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory, staff
from bookit.tests.crowd import behind_a_rival
from bookit.tests.expect import problem
from catalog import services
from catalog.models import Calendar, OpeningHours, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

MINIMAL = {"title": "Haircut", "price": "25.00", "duration_minutes": 30}


@pytest.fixture
def provider():
    return ProviderFactory(timezone="Europe/Lisbon")


@pytest.fixture
def as_admin(api):
    return api.as_(AdminFactory())


@pytest.fixture
def as_provider(api, provider):
    return api.as_(provider)


@pytest.fixture
def service(provider):
    return ServiceFactory(calendar=CalendarFactory(provider=provider))


def titles(client, query=""):
    response = client.get(f"/services{query}")
    assert response.status_code == 200, response.content
    return [row["title"] for row in response.json()["results"]]


class TestCreate:
    def test_a_service_needs_only_a_title_a_price_and_a_duration(self, as_provider, provider):
        response = as_provider.post("/services", MINIMAL)
        assert response.status_code == 201
        shown = response.json()
        assert UUID(shown["id"]).version == 7
        assert shown == {
            "id": shown["id"],
            "title": "Haircut",
            "description": "",
            "price": "25.00",
            "currency": "USD",
            "duration_minutes": 30,
            "capacity": 1,
            "mode": "open",
            "requires_confirmation": True,
            "buffer_before_minutes": 0,
            "buffer_after_minutes": 0,
            "min_notice_minutes": 0,
            "max_advance_days": None,
            "cancellation_notice_minutes": 0,
            "step_minutes": 30,
            "category": "",
            "is_active": True,
            "calendar_id": shown["calendar_id"],
            "provider_id": str(provider.pk),
            "rating_average": None,
            "rating_count": 0,
            "metadata": {},
            "created_at": shown["created_at"],
            "updated_at": shown["updated_at"],
            "calendar": {
                "id": shown["calendar_id"],
                "name": "Haircut",
                "timezone": "Europe/Lisbon",
                "provider_id": str(provider.pk),
                "opening_hours": [],
                "always_open": True,
                "metadata": {},
                "created_at": shown["calendar"]["created_at"],
                "updated_at": shown["calendar"]["updated_at"],
            },
        }

    def test_the_location_shows_the_created_service(self, as_provider):
        response = as_provider.post("/services", MINIMAL)
        assert response["Location"] == f"http://testserver/services/{response.json()['id']}"
        shown = response.json()
        calendar = shown.pop("calendar")
        assert as_provider.get(response["Location"]).json() == shown
        assert as_provider.get(f"/calendars/{shown['calendar_id']}").json() == calendar

    def test_the_response_shows_that_a_calendar_with_hours_is_not_always_open(
        self, as_provider, service
    ):
        OpeningHours.objects.create(calendar=service.calendar, weekday=1, opens=540, closes=1020)
        body = {**MINIMAL, "calendar_id": str(service.calendar_id)}
        calendar = as_provider.post("/services", body).json()["calendar"]
        assert calendar["always_open"] is False
        assert calendar["opening_hours"] == [{"weekday": 1, "opens": "09:00", "closes": "17:00"}]

    def test_a_service_without_a_calendar_gets_one_of_its_own(self, as_provider, provider):
        ids = {as_provider.post("/services", MINIMAL).json()["calendar_id"] for _ in range(2)}
        assert len(ids) == 2
        calendar = Calendar.objects.get(pk=ids.pop())
        assert (calendar.name, calendar.provider, calendar.timezone) == (
            "Haircut",
            provider,
            "Europe/Lisbon",
        )

    def test_the_calendar_of_an_admins_service_has_no_provider(self, as_admin):
        assert as_admin.post("/services", MINIMAL).json()["provider_id"] is None

    def test_all_fields_can_be_set_at_once(self, as_provider, service):
        everything = {
            "title": "Yoga",
            "description": "Bring a mat.",
            "price": "12.50",
            "currency": "EUR",
            "duration_minutes": 90,
            "capacity": 12,
            "mode": "slots",
            "requires_confirmation": False,
            "buffer_before_minutes": 10,
            "buffer_after_minutes": 15,
            "min_notice_minutes": 120,
            "max_advance_days": 60,
            "cancellation_notice_minutes": 1440,
            "step_minutes": 30,
            "category": "sport",
            "is_active": False,
            "calendar_id": str(service.calendar_id),
            "metadata": {"crm": "17"},
        }
        response = as_provider.post("/services", everything)
        assert response.status_code == 201
        assert everything.items() <= response.json().items()

    def test_a_setting_determines_the_default_currency(self, as_admin, settings):
        settings.DEFAULT_CURRENCY = "JPY"
        shown = as_admin.post("/services", {**MINIMAL, "price": "1500"}).json()
        assert (shown["price"], shown["currency"]) == ("1500", "JPY")
        response = as_admin.post("/services", {**MINIMAL, "price": "1.50"})
        problem(response, 400, "validation_error", "price")

    @pytest.mark.parametrize(
        ("currency", "price", "shown"),
        [
            ("JPY", "1500", "1500"),
            ("JPY", "1500.00", "1500"),
            ("ISK", 0, "0"),
            ("VND", "250000000", "250000000"),
            ("EUR", "7", "7.00"),
            ("EUR", "7.500", "7.50"),
            ("KWD", "1.5", "1.500"),
            ("BHD", "0.005", "0.005"),
            ("XOF", "900", "900"),
            ("XCG", "900", "900.00"),
        ],
    )
    def test_a_price_has_the_decimals_of_its_currency(self, api, as_admin, currency, price, shown):
        body = {**MINIMAL, "price": price, "currency": currency}
        response = as_admin.post("/services", body)
        assert response.status_code == 201, response.content
        assert response.json()["price"] == shown
        assert api.get(response["Location"]).json()["price"] == shown
        assert api.get("/services").json()["results"][0]["price"] == shown

    @pytest.mark.parametrize(
        ("currency", "price", "message"),
        [
            ("JPY", "1.50", "A price in JPY has no decimals."),
            ("KRW", "1500.5", "A price in KRW has no decimals."),
            ("USD", "1.005", "A price in USD has at most 2 decimals."),
            ("KWD", "1.0005", "Ensure that there are no more than 3 decimal places."),
        ],
    )
    def test_a_price_with_too_many_decimals_is_refused(self, as_admin, currency, price, message):
        body = {**MINIMAL, "price": price, "currency": currency}
        response = as_admin.post("/services", body)
        problem(response, 400, "validation_error", "price")
        assert response.json()["errors"][0]["message"] == message
        assert not Service.objects.exists()
        assert not Calendar.objects.exists()

    @pytest.mark.parametrize(
        "currency",
        # Unknown codes, codes for things that are not money (for example tests, gold, funds or
        # units of account), and currencies that are no longer used.
        ["XXZ", "XXX", "XTS", "XAU", "CHE", "CLF", "UYW", "XAD", "XDR", "DEM", "HRK", "ZZZ"],
    )
    def test_a_currency_must_be_in_use(self, as_admin, currency):
        response = as_admin.post("/services", {**MINIMAL, "currency": currency})
        problem(response, 400, "validation_error", "currency")
        assert response.json()["errors"][0]["message"] == (
            "Must be the ISO 4217 code of a currency in use, for example EUR."
        )

    def test_a_price_is_shown_with_cents_however_it_was_sent(self, as_admin):
        for price in ("7", 7, 7.0, "7.0", "07.00"):
            shown = as_admin.post("/services", {**MINIMAL, "price": price}).json()
            assert shown["price"] == "7.00"

    @pytest.mark.parametrize("price", ["\uff11\uff12", "\u0663", "12.00 EUR"])
    def test_a_price_must_be_in_ascii_digits(self, as_admin, price):
        response = as_admin.post("/services", {**MINIMAL, "price": price})
        problem(response, 400, "validation_error", "price")

    def test_a_service_may_be_free(self, as_admin):
        assert as_admin.post("/services", {**MINIMAL, "price": "0"}).json()["price"] == "0.00"

    def test_missing_fields_are_named(self, as_admin):
        response = as_admin.post("/services", {})
        problem(response, 400, "validation_error", "title", "price", "duration_minutes")

    def test_an_unknown_calendar_is_refused(self, as_admin):
        response = as_admin.post("/services", {**MINIMAL, "calendar_id": str(uuid4())})
        problem(response, 400, "validation_error", "calendar_id")

    def test_other_users_cannot_create_a_service_on_a_calendar(self, api, service):
        for stranger in (ProviderFactory(), UserFactory()):
            for calendar in (service.calendar, CalendarFactory()):
                response = api.as_(stranger).post(
                    "/services", {**MINIMAL, "calendar_id": str(calendar.pk)}
                )
                problem(response, 403, "permission_denied")
        assert Service.objects.count() == 1

    def test_a_client_may_send_back_what_it_has_read(self, as_provider, service):
        shown = as_provider.get(f"/services/{service.pk}").json()
        response = as_provider.post(
            "/services", {**shown, "rating_average": 5, "rating_count": 100}
        )
        assert response.status_code == 201
        result = response.json()
        assert result["id"] != shown["id"]
        assert (result["rating_average"], result["rating_count"]) == (None, 0)
        assert isinstance(result["calendar"], dict)
        assert as_provider.post("/services", result).status_code == 201
        response = as_provider.patch(f"/services/{result['id']}", result)
        assert response.status_code == 200

    @pytest.mark.parametrize("value", ["", "x", "{id}", 5, True, []])
    def test_a_calendar_that_is_not_an_object_is_refused(self, as_provider, service, value):
        if value == "{id}":
            value = str(service.calendar_id)
        response = as_provider.post("/services", {**MINIMAL, "calendar": value})
        problem(response, 400, "validation_error", "calendar")
        response = as_provider.patch(f"/services/{service.pk}", {"calendar": value})
        problem(response, 400, "validation_error", "calendar")
        assert Service.objects.count() == 1


# Each value is invalid both in a POST and in a PATCH.
INVALID_FIELDS = [
    ("title", None),
    ("title", ""),
    ("title", "   "),
    ("title", "t" * 201),
    ("title", "nul\0"),
    ("title", ["Haircut"]),
    ("title", {"en": "Haircut"}),
    ("title", True),
    ("description", None),
    ("description", "d" * 10_001),
    ("price", None),
    ("price", ""),
    ("price", "free"),
    ("price", "-0.01"),
    ("price", -1),
    ("price", "1.001"),
    ("price", "1234567890123.00"),
    ("price", "NaN"),
    ("price", "Infinity"),
    ("price", "1e3000"),
    ("price", [1]),
    ("price", True),
    ("currency", None),
    ("currency", ""),
    ("currency", "eur"),
    ("currency", "EURO"),
    ("currency", "E1R"),
    ("currency", "ÉUR"),
    ("duration_minutes", None),
    ("duration_minutes", 0),
    ("duration_minutes", -30),
    ("duration_minutes", 30.5),
    ("duration_minutes", "half an hour"),
    ("duration_minutes", 366 * 24 * 60 + 1),
    ("duration_minutes", 2**31),
    ("duration_minutes", 2**63),
    ("duration_minutes", [30]),
    ("capacity", 0),
    ("capacity", -1),
    ("capacity", 1001),
    ("capacity", None),
    ("mode", "shut"),
    ("mode", None),
    ("mode", ["open"]),
    ("requires_confirmation", None),
    ("requires_confirmation", "maybe"),
    ("requires_confirmation", 2),
    ("requires_confirmation", []),
    ("buffer_before_minutes", -1),
    ("buffer_before_minutes", 366 * 24 * 60 + 1),
    ("buffer_after_minutes", -1),
    ("buffer_after_minutes", None),
    ("min_notice_minutes", -1),
    ("max_advance_days", 0),
    ("max_advance_days", 3661),
    ("cancellation_notice_minutes", -1),
    ("step_minutes", 0),
    ("step_minutes", 366 * 24 * 60 + 1),
    ("step_minutes", "x"),
    ("category", None),
    ("category", "c" * 101),
    ("is_active", None),
    ("is_active", "yes please"),
    ("calendar_id", None),
    ("calendar_id", "x"),
    ("calendar_id", 5),
    ("calendar_id", []),
    ("colour", "red"),
    ("search", "x"),
    ("rating_sum", 5),
]


@pytest.mark.parametrize(("field", "value"), INVALID_FIELDS)
def test_the_error_names_an_invalid_field_and_nothing_is_stored(as_admin, service, field, value):
    before = list(Service.objects.values())
    response = as_admin.post("/services", {**MINIMAL, field: value})
    problem(response, 400, "validation_error", field)
    response = as_admin.patch(f"/services/{service.pk}", {field: value})
    problem(response, 400, "validation_error", field)
    assert list(Service.objects.values()) == before
    assert Calendar.objects.count() == 1


class TestShow:
    def test_everybody_sees_a_service(self, api, service, provider):
        shown = api.get(f"/services/{service.pk}").json()
        assert shown["id"] == str(service.pk)
        assert shown["calendar_id"] == str(service.calendar_id)
        assert shown["provider_id"] == str(provider.pk)

    def test_everybody_sees_an_inactive_service(self, api):
        service = ServiceFactory(is_active=False)
        assert api.get(f"/services/{service.pk}").json()["is_active"] is False

    def test_a_service_on_a_calendar_without_a_provider_has_no_provider(self, api):
        assert api.get(f"/services/{ServiceFactory().pk}").json()["provider_id"] is None

    def test_the_default_step_is_the_duration(self, api):
        assert api.get(f"/services/{ServiceFactory().pk}").json()["step_minutes"] == 60
        service = ServiceFactory(step_minutes=20)
        assert api.get(f"/services/{service.pk}").json()["step_minutes"] == 20

    @pytest.mark.parametrize(
        ("total", "count", "average"), [(5, 1, 5), (13, 3, 4.33), (0, 0, None)]
    )
    def test_the_rating_is_an_average_with_two_decimals(self, api, total, count, average):
        service = ServiceFactory(rating_sum=total, rating_count=count)
        shown = api.get(f"/services/{service.pk}").json()
        assert (shown["rating_average"], shown["rating_count"]) == (average, count)

    @pytest.mark.parametrize("path", ["/services", "/calendars"])
    @pytest.mark.parametrize("pk", [uuid4(), "x", "1", "%00", "0" * 32, "null"])
    @pytest.mark.parametrize("method", ["get", "patch", "delete"])
    def test_an_unknown_id_is_not_found(self, as_admin, path, pk, method):
        problem(getattr(as_admin, method)(f"{path}/{pk}"), 404, "not_found")

    def test_reviews_of_an_unknown_service_are_not_found(self, api):
        problem(api.get(f"/services/{uuid4()}/reviews"), 404, "not_found")


class TestChange:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("title", "Shave"),
            ("description", "With a knife."),
            ("price", "0.50"),
            ("currency", "CHF"),
            ("duration_minutes", 45),
            ("capacity", 1000),
            ("mode", "slots"),
            ("requires_confirmation", False),
            ("buffer_before_minutes", 5),
            ("buffer_after_minutes", 5),
            ("min_notice_minutes", 60),
            ("max_advance_days", 30),
            ("cancellation_notice_minutes", 60),
            ("step_minutes", 15),
            ("category", "barbers"),
            ("is_active", False),
        ],
    )
    def test_changing_a_field_leaves_other_fields_unchanged(
        self, as_provider, service, field, value
    ):
        before = as_provider.get(f"/services/{service.pk}").json()
        response = as_provider.patch(f"/services/{service.pk}", {field: value})
        assert response.status_code == 200
        expected = {**before, field: value}
        if field == "duration_minutes":
            expected["step_minutes"] = value
        expected["updated_at"] = response.json()["updated_at"]
        assert response.json() == expected
        assert as_provider.get(f"/services/{service.pk}").json() == expected

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"currency": "JPY"}, "currency"),
            ({"price": "7.125"}, "price"),
            ({"price": "7.125", "currency": "EUR"}, "price"),
            ({"currency": "XXZ"}, "currency"),
        ],
    )
    def test_a_price_must_fit_its_currency_after_a_change(
        self, api, as_provider, service, changes, field
    ):
        as_provider.patch(f"/services/{service.pk}", {"price": "7.50"})
        before = api.get(f"/services/{service.pk}").json()
        response = as_provider.patch(f"/services/{service.pk}", changes)
        problem(response, 400, "validation_error", field)
        assert api.get(f"/services/{service.pk}").json() == before

    @pytest.mark.parametrize(
        ("changes", "shown"),
        [
            ({"currency": "JPY"}, ("7", "JPY")),
            ({"currency": "KWD"}, ("7.000", "KWD")),
            ({"currency": "KWD", "price": "7.125"}, ("7.125", "KWD")),
        ],
    )
    def test_a_price_has_the_decimals_of_its_new_currency(
        self, as_provider, service, changes, shown
    ):
        as_provider.patch(f"/services/{service.pk}", {"price": "7"})
        result = as_provider.patch(f"/services/{service.pk}", changes).json()
        assert (result["price"], result["currency"]) == shown

    def test_a_service_with_an_obsolete_currency_can_still_be_changed(self, as_provider, service):
        Service.objects.filter(pk=service.pk).update(currency="HRK")
        response = as_provider.patch(f"/services/{service.pk}", {"title": "Shave"})
        assert (response.status_code, response.json()["price"]) == (200, "25.00")

    @pytest.mark.parametrize("field", ["max_advance_days", "step_minutes"])
    def test_an_optional_number_can_be_removed(self, as_provider, service, field):
        as_provider.patch(f"/services/{service.pk}", {field: 7})
        shown = as_provider.patch(f"/services/{service.pk}", {field: None}).json()
        assert shown[field] == (None if field == "max_advance_days" else 60)

    def test_a_client_may_send_back_what_it_has_read(self, as_provider, service):
        shown = as_provider.get(f"/services/{service.pk}").json()
        response = as_provider.patch(f"/services/{service.pk}", shown)
        shown["updated_at"] = response.json()["updated_at"]
        assert (response.status_code, response.json()) == (200, shown)

    def test_a_default_step_that_is_sent_back_still_follows_the_duration(
        self, as_provider, service
    ):
        path = f"/services/{service.pk}"
        as_provider.patch(path, {**as_provider.get(path).json(), "title": "Shave"})
        longer = as_provider.patch(path, {"duration_minutes": 90}).json()
        assert (longer["title"], longer["step_minutes"]) == ("Shave", 90)

    def test_a_step_is_kept_if_it_is_the_former_duration(self, as_provider, service):
        path = f"/services/{service.pk}"
        changes = {"duration_minutes": 90, "step_minutes": service.duration_minutes}
        assert as_provider.patch(path, changes).json()["step_minutes"] == 60
        assert as_provider.patch(path, {"duration_minutes": 60}).json()["step_minutes"] == 60
        assert as_provider.patch(path, {"duration_minutes": 90}).json()["step_minutes"] == 60

    def test_a_client_may_send_back_a_step_of_several_days(self, as_provider, service):
        as_provider.patch(f"/services/{service.pk}", {"duration_minutes": 3 * 24 * 60})
        shown = as_provider.get(f"/services/{service.pk}").json()
        response = as_provider.patch(f"/services/{service.pk}", shown)
        shown["updated_at"] = response.json()["updated_at"]
        assert (response.status_code, response.json()) == (200, shown)

    def test_read_only_fields_are_ignored(self, as_admin, service):
        shown = as_admin.get(f"/services/{service.pk}").json()
        response = as_admin.patch(
            f"/services/{service.pk}",
            {
                "id": str(uuid4()),
                "provider_id": str(uuid4()),
                "rating_average": 5,
                "rating_count": 9,
                "created_at": "2020-01-01T00:00:00Z",
            },
        )
        assert (response.status_code, response.json()) == (200, shown)

    def test_a_provider_moves_a_service_to_another_of_their_calendars(
        self, as_provider, provider, service
    ):
        calendar = CalendarFactory(provider=provider)
        response = as_provider.patch(f"/services/{service.pk}", {"calendar_id": str(calendar.pk)})
        assert response.json()["calendar_id"] == str(calendar.pk)

    def test_a_provider_cannot_move_a_service_to_a_calendar_that_is_not_theirs(
        self, as_provider, service
    ):
        own = service.calendar_id
        for calendar in (CalendarFactory(), CalendarFactory(provider=ProviderFactory())):
            response = as_provider.patch(
                f"/services/{service.pk}", {"calendar_id": str(calendar.pk)}
            )
            problem(response, 403, "permission_denied")
        service.refresh_from_db()
        assert service.calendar_id == own

    def test_an_admin_moves_a_service_to_another_providers_calendar(self, as_admin, service):
        other = CalendarFactory(provider=ProviderFactory())
        shown = as_admin.patch(f"/services/{service.pk}", {"calendar_id": str(other.pk)}).json()
        assert shown["provider_id"] == str(other.provider_id)

    def test_an_unknown_calendar_is_refused(self, as_admin, service):
        response = as_admin.patch(f"/services/{service.pk}", {"calendar_id": str(uuid4())})
        problem(response, 400, "validation_error", "calendar_id")

    def test_a_former_provider_cannot_change_a_service(self, api, provider, service):
        provider.role = "user"
        provider.save()
        response = api.as_(provider).patch(f"/services/{service.pk}", {"title": "Mine"})
        problem(response, 403, "permission_denied")


class TestDelete:
    def test_a_service_is_deleted(self, api, as_provider, service):
        response = as_provider.delete(f"/services/{service.pk}")
        assert (response.status_code, response.content) == (204, b"")
        problem(api.get(f"/services/{service.pk}"), 404, "not_found")

    def test_deleting_a_service_keeps_its_calendar(self, as_provider, service):
        as_provider.delete(f"/services/{service.pk}")
        assert Calendar.objects.filter(pk=service.calendar_id).exists()


class TestFilters:
    def test_services_are_filtered_by_price(self, api):
        for price in (10, 20, 30):
            ServiceFactory(title=f"for {price}", price=price)
        assert titles(api, "?price_min=20") == ["for 20", "for 30"]
        assert titles(api, "?price_max=20") == ["for 10", "for 20"]
        assert titles(api, "?price_min=10.01&price_max=29.99") == ["for 20"]
        assert titles(api, "?price_min=30&price_max=10") == []
        assert titles(api, "?price_min=0") == ["for 10", "for 20", "for 30"]

    def test_inactive_services_are_shown_only_on_request(self, api):
        ServiceFactory(title="active")
        ServiceFactory(title="inactive", is_active=False)
        assert titles(api) == titles(api, "?active=true") == ["active"]
        assert titles(api, "?active=false") == ["inactive"]
        assert titles(api, "?active=any") == ["active", "inactive"]
        # Other filters do not show inactive services either.
        assert titles(api, "?price_min=1") == ["active"]

    def test_services_are_filtered_by_provider_and_calendar(self, api, provider, service):
        other = ServiceFactory(calendar=CalendarFactory(provider=provider))
        ServiceFactory()
        assert set(titles(api, f"?provider_id={provider.pk}")) == {service.title, other.title}
        assert titles(api, f"?calendar_id={service.calendar_id}") == [service.title]
        assert titles(api, f"?provider_id={uuid4()}") == []

    def test_services_are_filtered_by_mode_and_category(self, api):
        ServiceFactory(title="cut", category="barbers")
        ServiceFactory(title="yoga", mode="slots", category="sport, indoor")
        assert titles(api, "?mode=slots") == ["yoga"]
        assert titles(api, "?mode=open") == ["cut"]
        assert titles(api, "?category=barbers") == ["cut"]
        assert titles(api, "?category=sport,%20indoor") == ["yoga"]
        assert titles(api, "?category=barber") == []
        assert titles(api, "?category=barbers&mode=slots") == []

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("price_min=cheap", "price_min"),
            ("price_min=-1", "price_min"),
            ("price_min=NaN", "price_min"),
            ("price_min=\uff15", "price_min"),
            ("price_max=Infinity", "price_max"),
            ("price_max=1e400", "price_max"),
            ("price_max=1.0001", "price_max"),
            ("price_max=1000000000000", "price_max"),
            ("active=yes", "active"),
            ("active=True", "active"),
            ("provider_id=me", "provider_id"),
            ("calendar_id=1", "calendar_id"),
            ("mode=shut", "mode"),
            ("category=" + "c" * 101, "category"),
            ("q=" + "q" * 201, "q"),
            ("q=%00", "q"),
            ("category=%00", "category"),
            ("ordering=rating_sum", "ordering"),
            ("ordering=relevance", "ordering"),
            ("ordering=-relevance", "ordering"),
            ("ordering=title;drop", "ordering"),
            ("cursor=", "cursor"),
            ("search=x", "search"),
            ("price=5", "price"),
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("page=0", "page"),
            ("offset=-1", "offset"),
        ],
    )
    def test_the_error_names_the_invalid_parameter(self, api, query, field):
        problem(api.get(f"/services?{query}"), 400, "validation_error", field)


class TestOrder:
    @pytest.fixture(autouse=True)
    def _three_services(self):
        now = timezone.now()
        for title, price, minutes, rating, age in (
            ("c", 20, 30, (5, 1), 2),
            ("a", 30, 60, (9, 2), 1),
            ("b", 10, 90, None, 3),
        ):
            ServiceFactory(
                title=title,
                price=Decimal(price),
                duration_minutes=minutes,
                rating_sum=rating[0] if rating else 0,
                rating_count=rating[1] if rating else 0,
                created_at=now - timedelta(days=age),
            )

    @pytest.mark.parametrize(
        ("ordering", "expected"),
        [
            (None, "abc"),
            ("title", "abc"),
            ("-title", "cba"),
            ("price", "bca"),
            ("-price", "acb"),
            ("duration_minutes", "cab"),
            ("-duration_minutes", "bac"),
            ("created_at", "bca"),
            ("-created_at", "acb"),
            # Services without a rating come last in both directions.
            ("rating", "acb"),
            ("-rating", "cab"),
        ],
    )
    def test_services_are_ordered(self, api, ordering, expected):
        assert titles(api, f"?ordering={ordering}" if ordering else "") == list(expected)

    @pytest.mark.parametrize("ordering", ["title", "-price", "rating", "-rating"])
    def test_ties_are_broken_so_that_pages_never_overlap(self, api, ordering):
        Service.objects.all().delete()
        for _ in range(7):
            ServiceFactory(title="same")
        pages = [
            [
                row["id"]
                for row in api.get(f"/services?ordering={ordering}&limit=3&page={page}").json()[
                    "results"
                ]
            ]
            for page in (1, 2, 3)
        ]
        assert [len(page) for page in pages] == [3, 3, 1]
        found = [pk for page in pages for pk in page]
        # The id breaks ties, in the direction of the last field.
        assert found == sorted({*found}, reverse=ordering.startswith("-"))

    def test_services_are_ordered_by_several_fields(self, api):
        ServiceFactory(title="a", price=5)
        assert titles(api, "?ordering=-title,price") == ["c", "b", "a", "a"]
        prices = [
            row["price"] for row in api.get("/services?ordering=-title,price").json()["results"]
        ]
        assert prices == ["20.00", "10.00", "5.00", "30.00"]


def test_a_row_of_the_list_equals_the_service_shown_alone(api):
    service = ServiceFactory(rating_sum=9, rating_count=2, step_minutes=None)
    (row,) = api.get("/services").json()["results"]
    (filtered,) = api.get("/services?price_min=1&ordering=price").json()["results"]
    assert row == filtered == api.get(f"/services/{service.pk}").json()


def test_staff_who_may_not_create_calendars_must_name_the_calendar_of_a_new_service(api):
    client = api.as_(staff(["catalog.add_service"]))
    body = {"title": "Haircut", "duration_minutes": 30, "price": "20.00"}

    refused = problem(client.post("/services", body), 403, "permission_denied")

    assert refused["detail"] == (
        "You cannot create calendars. Choose an existing calendar for the service."
    )
    assert not Calendar.objects.exists()
    body["calendar_id"] = str(CalendarFactory().pk)
    assert client.post("/services", body).status_code == 201


@pytest.mark.parametrize(
    ("permissions", "shown"),
    [
        (["catalog.add_service"], {}),
        (["catalog.add_service", "catalog.change_calendar"], {"metadata": {"crm": "17"}}),
    ],
)
def test_only_users_who_may_change_the_calendar_see_its_metadata_with_a_new_service(
    api, permissions, shown
):
    calendar = CalendarFactory(metadata={"crm": "17"})
    body = {"calendar_id": str(calendar.pk), "title": "Haircut", "duration_minutes": 30}

    response = api.as_(staff(permissions)).post("/services", {**body, "price": "20.00"})

    assert response.status_code == 201, response.content
    found = response.json()["calendar"]
    assert found["id"] == str(calendar.pk)
    assert {name: found[name] for name in ["metadata"] if name in found} == shown


@pytest.mark.django_db(transaction=True)
def test_a_deletion_with_an_etag_is_refused_if_the_service_changes_meanwhile(api):
    service = ServiceFactory()
    client = api.as_(AdminFactory())
    tag = client.get(f"/services/{service.pk}")["ETag"]

    [outcome] = behind_a_rival(
        [lambda: client.delete(f"/services/{service.pk}", headers={"if-match": tag})],
        rival=lambda: Service.objects.filter(pk=service.pk).update(title="New"),
        end=transaction.commit,
    )

    problem(outcome.value, 412, "precondition_failed")
    assert Service.objects.filter(pk=service.pk).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("change", "titles"),
    [
        (partial(services.update_service, changes={"title": "New"}), ["New"]),
        (services.delete_service, []),
    ],
)
def test_a_service_can_be_changed_or_deleted_while_it_moves_to_another_calendar(change, titles):
    service, admin, other = ServiceFactory(), AdminFactory(), CalendarFactory()

    [outcome] = behind_a_rival(
        [lambda: change(service_id=service.pk, actor=admin)],
        rival=lambda: Service.objects.filter(pk=service.pk).update(calendar=other),
        end=transaction.commit,
    )

    assert outcome.error is None
    assert [*Service.objects.filter(calendar=other).values_list("title", flat=True)] == titles
