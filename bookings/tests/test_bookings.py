"""Clients create, list, reschedule, cancel and delete bookings through the API."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import time_machine
from django.db import DatabaseError
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import services
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.tests.crowd import run
from bookit.tests.expect import problem
from bookit.tests.valid_requests import BODIES
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
Status = Booking.Status


@pytest.fixture
def user():
    return UserFactory()


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def admin():
    return AdminFactory()


@pytest.fixture
def service(provider):
    return ServiceFactory(calendar=CalendarFactory(provider=provider))


@pytest.fixture
def as_user(api, user):
    return api.as_(user)


@pytest.fixture
def as_provider(api, provider):
    return api.as_(provider)


@pytest.fixture
def as_admin(api, admin):
    return api.as_(admin)


@pytest.fixture
def booking(user, service):
    """Return a pending booking of `user` with `provider`; its history contains its creation."""
    return services.create_booking(
        actor=user, service_id=service.pk, start_time=TUESDAY, at=timezone.now()
    )


def iso(instant):
    """Format an instant as responses do."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def body(service, start_time=TUESDAY, **more):
    return {"service_id": str(service.pk), "start_time": iso(start_time), **more}


def history(booking):
    return list(BookingEvent.objects.filter(booking_id=booking.pk).values_list("type", flat=True))


def stored(booking):
    return Booking.objects.filter(pk=booking.pk).values().get()


class TestCreate:
    def test_a_client_can_book_a_time(self, as_user, user, service):
        before = timezone.now()
        response = as_user.post(
            "/bookings",
            body(
                service,
                attendee_name="Ana",
                attendee_email="ana@example.com",
                attendee_phone="+351 912 345 678",
                notes="Short.",
            ),
        )
        assert response.status_code == 201
        content = response.json()
        assert UUID(content["id"]).version == 7
        assert before <= datetime.fromisoformat(content["created_at"]) <= timezone.now()
        assert content == {
            "id": content["id"],
            "user_id": str(user.pk),
            "service_id": str(service.pk),
            "calendar_id": str(service.calendar_id),
            "slot_id": None,
            "seat": 1,
            "start_time": "2999-01-01T10:00:00Z",
            "end_time": "2999-01-01T11:00:00Z",
            "status": "pending",
            "attendee_name": "Ana",
            "attendee_email": "ana@example.com",
            "attendee_phone": "+351 912 345 678",
            "language": "en",
            "notes": "Short.",
            "cancellation_reason": "",
            "price": "25.00",
            "currency": "USD",
            "hold_expires_at": None,
            "metadata": {},
            "created_at": content["created_at"],
            "updated_at": content["created_at"],
        }

    def test_every_field_of_the_request_is_stored(self, as_user, user, service):
        """The response to the POST shows the booking that was sent, not the stored one."""
        # This request sends every field that determines a column.
        sent = {**BODIES["POST /bookings"][0], "service_id": str(service.pk)}
        sent["user_id"] = str(user.pk)
        made = as_user.post("/bookings", sent).json()
        stored = as_user.get(f"/bookings/{made['id']}").json()
        assert stored == made
        assert {name: stored[name] for name in sent} == sent

    def test_the_location_header_is_the_url_of_the_new_booking(self, as_user, service):
        response = as_user.post("/bookings", body(service))
        assert response["Location"] == f"http://testserver/bookings/{response.json()['id']}"
        assert as_user.get(response["Location"]).json() == response.json()

    def test_a_booking_is_confirmed_if_the_service_needs_no_confirmation(self, as_user):
        service = ServiceFactory(requires_confirmation=False)
        assert as_user.post("/bookings", body(service)).json()["status"] == "confirmed"

    def test_attendee_and_notes_may_be_left_out_or_empty(self, as_user, user, service):
        left_out = as_user.post("/bookings", body(service)).json()
        empty = as_user.post(
            "/bookings",
            body(
                service,
                TUESDAY + HOUR,
                attendee_name="",
                attendee_email="",
                attendee_phone="",
                notes="",
            ),
        ).json()
        for content in (left_out, empty):
            assert (content["attendee_name"], content["attendee_email"]) == (user.name, user.email)
            assert content["attendee_phone"] == content["notes"] == ""

    def test_a_start_in_another_zone_is_the_same_instant(self, as_user, service):
        response = as_user.post(
            "/bookings", {**body(service), "start_time": "2999-01-01T15:30:00+05:30"}
        )
        assert response.json()["start_time"] == "2999-01-01T10:00:00Z"

    def test_the_response_is_in_the_requested_zone(self, as_user, service):
        response = as_user.post("/bookings?tz=Asia/Tokyo", body(service))
        assert response.json()["start_time"] == "2999-01-01T19:00:00+09:00"
        assert response.json()["end_time"] == "2999-01-01T20:00:00+09:00"

    def test_a_taken_time_is_a_conflict_and_nothing_is_stored(self, as_user, service):
        BookingFactory(service=service)
        problem(as_user.post("/bookings", body(service)), 409, "booking_conflict")
        assert Booking.objects.count() == 1
        assert not BookingEvent.objects.exists()

    @pytest.mark.parametrize("minutes", [-59, -1, 1, 59])
    def test_an_overlapping_time_is_a_conflict(self, as_user, service, minutes):
        BookingFactory(service=service)
        start = TUESDAY + timedelta(minutes=minutes)
        problem(as_user.post("/bookings", body(service, start)), 409, "booking_conflict")

    @pytest.mark.parametrize("hours", [-1, 1])
    def test_back_to_back_bookings_are_accepted(self, as_user, service, hours):
        BookingFactory(service=service)
        start = TUESDAY + hours * HOUR
        assert as_user.post("/bookings", body(service, start)).status_code == 201

    @pytest.mark.parametrize("status", [Status.CANCELLED, Status.EXPIRED])
    def test_a_cancelled_or_expired_booking_frees_its_time(self, as_user, service, status):
        BookingFactory(service=service, status=status)
        assert as_user.post("/bookings", body(service)).status_code == 201

    @pytest.mark.parametrize("status", Booking.ACTIVE)
    def test_every_active_state_takes_the_time(self, as_user, service, status):
        BookingFactory(service=service, status=status)
        problem(as_user.post("/bookings", body(service)), 409, "booking_conflict")

    def test_bookings_take_the_lowest_free_seat_until_no_seat_is_left(self, as_user, user):
        service = ServiceFactory(capacity=3)
        responses = [as_user.post("/bookings", body(service)) for _ in range(4)]
        assert [response.json().get("seat") for response in responses] == [1, 2, 3, None]
        problem(responses[3], 409, "booking_conflict")
        services.cancel_booking(booking_id=responses[1].json()["id"], actor=user, at=timezone.now())
        assert as_user.post("/bookings", body(service)).json()["seat"] == 2

    def test_a_seat_must_be_free_for_the_whole_time(self, as_user):
        service = ServiceFactory(capacity=2)
        BookingFactory(service=service, seat=1, start_time=TUESDAY - HOUR / 2)
        BookingFactory(service=service, seat=2, start_time=TUESDAY + HOUR / 2)
        problem(as_user.post("/bookings", body(service)), 409, "booking_conflict")
        assert as_user.post("/bookings", body(service, TUESDAY + HOUR / 2)).json()["seat"] == 1

    def test_bookings_in_seats_above_a_lowered_capacity_count_towards_it(self, as_user):
        service = ServiceFactory(capacity=3)
        bookings = [BookingFactory(service=service, seat=seat) for seat in (1, 2, 3)]
        service.capacity = 2
        service.save()
        bookings[0].delete()
        problem(as_user.post("/bookings", body(service)), 409, "booking_conflict")
        bookings[2].delete()
        assert as_user.post("/bookings", body(service)).json()["seat"] == 1
        problem(as_user.post("/bookings", body(service)), 409, "booking_conflict")

    def test_a_booking_of_another_service_on_the_calendar_is_a_conflict(self, as_user, service):
        other = ServiceFactory(calendar=service.calendar, capacity=5)
        BookingFactory(service=other, seat=2, start_time=TUESDAY + HOUR / 2)
        problem(as_user.post("/bookings", body(service)), 409, "booking_conflict")
        assert as_user.post("/bookings", body(service, TUESDAY - HOUR / 2)).status_code == 201

    def test_buffers_are_kept_free_around_a_booking(self, as_user):
        service = ServiceFactory(buffer_before_minutes=10, buffer_after_minutes=20)
        first = as_user.post("/bookings", body(service)).json()
        assert first["end_time"] == "2999-01-01T11:00:00Z"
        # There must be 20 minutes after the first booking and 10 minutes before the second.
        too_early = body(service, TUESDAY + timedelta(minutes=89))
        problem(as_user.post("/bookings", too_early), 409, "booking_conflict")
        right = body(service, TUESDAY + timedelta(minutes=90))
        assert as_user.post("/bookings", right).status_code == 201

    def test_a_booking_keeps_the_price_at_booking_time(self, as_user, as_admin, service):
        made = as_user.post("/bookings", body(service)).json()
        response = as_admin.patch(f"/services/{service.pk}", {"price": "99.00", "currency": "EUR"})
        assert response.status_code == 200
        for change in ({}, {"start_time": iso(TUESDAY + HOUR)}):
            shown = as_user.patch(f"/bookings/{made['id']}", change).json()
            assert (shown["price"], shown["currency"]) == ("25.00", "USD")
        new = as_user.post("/bookings", body(service, TUESDAY + 3 * HOUR)).json()
        assert (new["price"], new["currency"]) == ("99.00", "EUR")

    def test_a_booking_keeps_the_buffers_and_duration_at_booking_time(self, as_user, as_admin):
        service = ServiceFactory(buffer_before_minutes=10, buffer_after_minutes=20)
        made = as_user.post("/bookings", body(service)).json()
        response = as_admin.patch(
            f"/services/{service.pk}",
            {"buffer_before_minutes": 0, "buffer_after_minutes": 0, "duration_minutes": 15},
        )
        assert response.status_code == 200
        moved = as_user.patch(
            f"/bookings/{made['id']}", {"start_time": iso(TUESDAY + 2 * HOUR)}
        ).json()
        assert moved["end_time"] == iso(TUESDAY + 3 * HOUR)
        blocked = Booking.objects.get().blocked
        assert blocked.lower == TUESDAY + 2 * HOUR - timedelta(minutes=10)
        assert blocked.upper == TUESDAY + 3 * HOUR + timedelta(minutes=20)

    def test_a_matching_end_time_is_accepted(self, as_user, service):
        response = as_user.post("/bookings", body(service, end_time="2999-01-01T12:00:00+01:00"))
        assert response.status_code == 201

    @pytest.mark.parametrize("minutes", [0, -60, 59, 61, 120])
    def test_a_wrong_end_time_is_refused(self, as_user, service, minutes):
        end = iso(TUESDAY + timedelta(minutes=minutes))
        response = as_user.post("/bookings", body(service, end_time=end))
        problem(response, 400, "validation_error", "end_time")
        assert not Booking.objects.exists()

    def test_a_time_in_the_past_is_refused(self, api, user, service):
        with time_machine.travel(TUESDAY, tick=False):
            client = api.as_(user)
            late = body(service, TUESDAY - timedelta(seconds=1))
            problem(client.post("/bookings", late), 400, "validation_error", "start_time")
            assert not Booking.objects.exists()
            assert client.post("/bookings", body(service, TUESDAY)).status_code == 201

    def test_an_unknown_service_is_refused(self, as_user, service):
        wrong = {**body(service), "service_id": str(uuid4())}
        problem(as_user.post("/bookings", wrong), 400, "validation_error", "service_id")

    def test_an_inactive_service_cannot_be_booked(self, as_user):
        service = ServiceFactory(is_active=False)
        problem(as_user.post("/bookings", body(service)), 409, "service_inactive")
        assert not Booking.objects.exists()

    def test_missing_fields_are_named(self, as_user):
        response = as_user.post("/bookings", {})
        problem(response, 400, "validation_error", "service_id", "start_time")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("service_id", None),
            ("service_id", "x"),
            ("service_id", 7),
            ("service_id", ["a"]),
            ("service_id", {"a": 1}),
            ("start_time", None),
            ("start_time", ""),
            ("start_time", "2999-01-01T10:00:00"),
            ("start_time", "2999-01-01"),
            ("start_time", "2999-01-01T10:00Z"),
            ("start_time", "2999-02-30T10:00:00Z"),
            ("start_time", "2999-01-01T24:00:00Z"),
            ("start_time", "2999-01-01T10:00:60Z"),
            ("start_time", "2999-01-01T10:00:00+24:00"),
            ("start_time", "9999-12-31T23:30:00Z"),
            ("start_time", "0001-01-01T00:30:00Z"),
            ("start_time", "2999-01-01T10:00:00 00:00"),
            ("start_time", "２９９９-01-01T10:00:00Z"),  # noqa: RUF001 - full-width digits
            ("start_time", "now"),
            ("start_time", 32472144000),
            ("start_time", True),
            ("start_time", ["2999-01-01T10:00:00Z"]),
            ("end_time", None),
            ("end_time", "2999-01-01T11:00:00"),
            ("user_id", None),
            ("user_id", "me"),
            ("attendee_name", None),
            ("attendee_name", ["Ana"]),
            ("attendee_name", "A" * 201),
            ("attendee_name", "A\0"),
            ("attendee_email", "ana"),
            ("attendee_email", "ana@"),
            ("attendee_email", "a" * 250 + "@example.com"),
            ("attendee_email", "ana@example.com\nBcc: all@example.com"),
            ("attendee_phone", None),
            ("attendee_phone", "call me"),
            ("attendee_phone", "+351\u00a0912"),
            ("attendee_phone", "\uff11\uff12\uff13\uff14"),
            ("attendee_phone", "+" + "1" * 32),
            ("attendee_phone", "+351912345678\nX: y"),
            ("notes", None),
            ("notes", {"a": "b"}),
            ("notes", "n" * 2001),
            ("notes", "\0"),
            ("colour", "red"),
            ("service", "misspelt"),
            ("reason", "because"),
        ],
    )
    def test_an_invalid_field_is_named_and_nothing_is_stored(self, as_admin, service, field, value):
        response = as_admin.post("/bookings", {**body(service), field: value})
        problem(response, 400, "validation_error", field)
        assert not Booking.objects.exists()

    @pytest.mark.parametrize("content", ["[]", "null", '"text"', "7", "[[]]"])
    def test_a_body_that_is_not_an_object_is_refused(self, as_user, content):
        response = as_user.post("/bookings", content, content_type="application/json")
        problem(response, 400, "validation_error", "")

    def test_read_only_fields_of_a_new_booking_are_ignored(self, as_user, service):
        made = as_user.post("/bookings", body(service)).json()
        again = {
            **made,
            "start_time": iso(TUESDAY + HOUR),
            "end_time": iso(TUESDAY + 2 * HOUR),
            "seat": 9,
            "status": "completed",
            "price": "0.01",
            "currency": "XXX",
        }
        response = as_user.post("/bookings", again)
        assert response.status_code == 201
        content = response.json()
        assert content["id"] != made["id"]
        assert content["seat"] == 1
        assert content["status"] == "pending"
        assert (content["price"], content["currency"]) == ("25.00", "USD")


class TestCreateForAnotherUser:
    def test_an_admin_can_book_for_a_user(self, api, as_admin, admin, user, service):
        response = as_admin.post("/bookings", body(service, user_id=str(user.pk)))
        assert response.status_code == 201
        assert response.json()["user_id"] == str(user.pk)
        assert api.as_(user).get("/bookings").json()["count"] == 1
        assert BookingEvent.objects.get().actor == admin

    def test_users_and_providers_cannot_book_for_another_user(self, as_user, as_provider, service):
        other = UserFactory()
        for client in (as_user, as_provider):
            response = client.post("/bookings", body(service, user_id=str(other.pk)))
            problem(response, 403, "permission_denied")
        assert not Booking.objects.exists()

    def test_a_user_may_send_their_own_id(self, as_user, user, service):
        response = as_user.post("/bookings", body(service, user_id=str(user.pk)))
        assert response.status_code == 201

    def test_an_unknown_user_is_refused(self, as_admin, service):
        response = as_admin.post("/bookings", body(service, user_id=str(uuid4())))
        problem(response, 400, "validation_error", "user_id")

    def test_an_admin_cannot_book_for_an_inactive_user(self, as_admin, service):
        gone = UserFactory(is_active=False)
        response = as_admin.post("/bookings", body(service, user_id=str(gone.pk)))
        problem(response, 400, "validation_error", "user_id")


class TestRead:
    def test_the_owner_the_provider_and_an_admin_can_see_a_booking(
        self, as_user, as_provider, as_admin, booking
    ):
        responses = [
            client.get(f"/bookings/{booking.pk}") for client in (as_user, as_provider, as_admin)
        ]
        assert [response.status_code for response in responses] == [200] * 3
        assert responses[0].json() == responses[1].json() == responses[2].json()

    def test_strangers_cannot_see_a_booking(self, api, booking):
        for stranger in (UserFactory(), ProviderFactory()):
            problem(api.as_(stranger).get(f"/bookings/{booking.pk}"), 403, "permission_denied")
        problem(api.get(f"/bookings/{booking.pk}"), 401, "not_authenticated")

    def test_an_id_may_be_in_uppercase(self, as_user, booking):
        assert as_user.get(f"/bookings/{str(booking.pk).upper()}").status_code == 200

    @pytest.mark.parametrize("pk", [uuid4(), "x", "1", "%00", "0" * 32, "..", "null"])
    @pytest.mark.parametrize("method", ["get", "patch", "delete"])
    def test_an_unknown_booking_is_not_found(self, as_admin, pk, method):
        problem(getattr(as_admin, method)(f"/bookings/{pk}"), 404, "not_found")

    def test_put_is_not_allowed(self, as_user, booking):
        problem(as_user.put(f"/bookings/{booking.pk}", {}), 405, "method_not_allowed")


class TestReschedule:
    def test_a_booking_is_moved(self, as_user, booking):
        response = as_user.patch(f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + 5 * HOUR)})
        assert response.status_code == 200
        content = response.json()
        assert content["start_time"] == iso(TUESDAY + 5 * HOUR)
        assert content["end_time"] == iso(TUESDAY + 6 * HOUR)
        assert content["status"] == "pending"
        assert content["updated_at"] > content["created_at"]
        assert as_user.get(f"/bookings/{booking.pk}").json() == content

    def test_a_moved_booking_frees_its_old_time(self, as_user, booking, service):
        as_user.patch(f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + HOUR)})
        assert as_user.post("/bookings", body(service)).status_code == 201

    def test_a_booking_can_move_to_a_time_that_overlaps_its_old_time(self, as_user, booking):
        response = as_user.patch(f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + HOUR / 2)})
        assert response.status_code == 200

    def test_moving_to_a_taken_time_is_a_conflict_and_changes_nothing(
        self, as_user, booking, service
    ):
        BookingFactory(service=service, start_time=TUESDAY + 2 * HOUR)
        before = stored(booking)
        response = as_user.patch(
            f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + 1.5 * HOUR)}
        )
        problem(response, 409, "booking_conflict")
        assert stored(booking) == before
        assert history(booking) == ["booking.created"]

    def test_moving_onto_a_booking_of_another_service_of_the_calendar_is_a_conflict(
        self, as_user, booking, service
    ):
        other = ServiceFactory(calendar=service.calendar)
        BookingFactory(service=other, start_time=TUESDAY + 2 * HOUR)
        response = as_user.patch(f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + 2 * HOUR)})
        problem(response, 409, "booking_conflict")

    def test_a_moved_booking_takes_the_lowest_free_seat(self, as_user, user):
        service = ServiceFactory(capacity=3)
        booking = BookingFactory(user=user, service=service, seat=3)
        BookingFactory(service=service, seat=1, start_time=TUESDAY + HOUR)
        response = as_user.patch(f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + HOUR)})
        assert response.json()["seat"] == 2

    def test_a_confirmed_booking_stays_confirmed_when_it_is_moved(self, as_user, user, service):
        booking = BookingFactory(user=user, service=service, status=Status.CONFIRMED)
        response = as_user.patch(f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + HOUR)})
        assert response.json()["status"] == "confirmed"

    @pytest.mark.parametrize(
        "status",
        [Status.HELD, Status.CANCELLED, Status.COMPLETED, Status.EXPIRED, Status.NO_SHOW],
    )
    def test_only_a_pending_or_confirmed_booking_can_be_moved(
        self, as_admin, as_user, user, status
    ):
        booking = BookingFactory(user=user, status=status)
        for client in (as_user, as_admin):
            for start_time in (TUESDAY + HOUR, TUESDAY):
                response = client.patch(f"/bookings/{booking.pk}", {"start_time": iso(start_time)})
                problem(response, 409, "invalid_transition")

    def test_moving_into_the_past_is_refused(self, api, user, booking):
        with time_machine.travel(TUESDAY - HOUR, tick=False):
            response = api.as_(user).patch(
                f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY - 2 * HOUR)}
            )
        problem(response, 400, "validation_error", "start_time")
        assert Booking.objects.get().start_time == TUESDAY

    def test_a_booking_of_an_inactive_service_cannot_be_moved(self, as_user, booking, service):
        service.is_active = False
        service.save()
        response = as_user.patch(f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + HOUR)})
        problem(response, 409, "service_inactive")

    def test_moving_to_the_same_time_changes_nothing(self, as_user, booking):
        before = stored(booking)
        response = as_user.patch(f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY)})
        assert response.status_code == 200
        assert stored(booking) == before
        assert history(booking) == ["booking.created"]

    def test_an_empty_patch_changes_nothing(self, as_user, booking):
        before = stored(booking)
        assert as_user.patch(f"/bookings/{booking.pk}", {}).status_code == 200
        assert stored(booking) == before

    def test_a_client_can_send_back_the_booking_it_has_read(self, as_user, booking):
        shown = as_user.get(f"/bookings/{booking.pk}").json()
        response = as_user.patch(f"/bookings/{booking.pk}", shown)
        assert (response.status_code, response.json()) == (200, shown)
        assert history(booking) == ["booking.created"]
        moved = as_user.patch(
            f"/bookings/{booking.pk}", {**shown, "start_time": iso(TUESDAY + HOUR)}
        )
        assert moved.json()["end_time"] == iso(TUESDAY + 2 * HOUR)
        cancelled = as_user.patch(
            f"/bookings/{booking.pk}", {**moved.json(), "status": "cancelled"}
        )
        assert cancelled.json()["status"] == "cancelled"

    def test_time_and_status_cannot_change_in_one_request(self, as_admin, booking):
        response = as_admin.patch(
            f"/bookings/{booking.pk}",
            {"start_time": iso(TUESDAY + HOUR), "status": "confirmed"},
        )
        problem(response, 400, "validation_error", "")
        assert history(booking) == ["booking.created"]

    def test_the_provider_and_an_admin_can_move_a_booking(self, as_provider, as_admin, booking):
        for hours, client in enumerate((as_provider, as_admin), start=1):
            response = client.patch(
                f"/bookings/{booking.pk}", {"start_time": iso(TUESDAY + hours * HOUR)}
            )
            assert response.status_code == 200

    def test_strangers_cannot_change_a_booking(self, api, booking):
        for stranger in (UserFactory(), ProviderFactory()):
            client = api.as_(stranger)
            for change in (
                {},
                {"start_time": iso(TUESDAY)},
                {"start_time": iso(TUESDAY + HOUR)},
                {"status": "cancelled"},
                {"status": "pending"},
                {"start_time": iso(TUESDAY), "status": "pending"},
            ):
                response = client.patch(f"/bookings/{booking.pk}", change)
                problem(response, 403, "permission_denied")
        assert history(booking) == ["booking.created"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("start_time", "2999-01-01T10:00:00"),
            ("start_time", None),
            ("start_time", 5),
            ("status", "done"),
            ("status", None),
            ("status", ["cancelled"]),
            ("status", ""),
            ("colour", "red"),
        ],
    )
    def test_an_invalid_field_is_named_and_nothing_changes(self, as_admin, booking, field, value):
        response = as_admin.patch(f"/bookings/{booking.pk}", {field: value})
        problem(response, 400, "validation_error", field)
        assert history(booking) == ["booking.created"]


class TestCancel:
    @pytest.mark.parametrize("who", ["as_user", "as_provider", "as_admin"])
    def test_the_owner_the_provider_and_an_admin_can_cancel_a_booking(self, request, who, booking):
        client = request.getfixturevalue(who)
        response = client.patch(f"/bookings/{booking.pk}", {"status": "cancelled"})
        assert response.status_code == 200
        assert response.json()["status"] == "cancelled"
        assert history(booking) == ["booking.created", "booking.cancelled"]

    def test_a_cancelled_booking_frees_its_time(self, as_user, booking, service):
        as_user.patch(f"/bookings/{booking.pk}", {"status": "cancelled"})
        assert as_user.post("/bookings", body(service)).status_code == 201

    def test_a_cancelled_booking_cannot_be_cancelled_again(self, as_user, booking):
        as_user.patch(f"/bookings/{booking.pk}", {"status": "cancelled"})
        response = as_user.patch(f"/bookings/{booking.pk}", {"status": "cancelled"})
        problem(response, 409, "invalid_transition")
        assert history(booking) == ["booking.created", "booking.cancelled"]


class TestStatus:
    def test_a_provider_can_set_confirmed_completed_and_no_show(
        self, as_provider, booking, provider
    ):
        for status in ("confirmed", "completed", "no_show"):
            response = as_provider.patch(f"/bookings/{booking.pk}/status", {"status": status})
            assert response.status_code == 200
            assert response.json()["status"] == status
        assert history(booking) == [
            "booking.created",
            "booking.confirmed",
            "booking.completed",
            "booking.no_show",
        ]
        assert BookingEvent.objects.last().actor == provider

    def test_the_reason_of_a_provider_is_stored_in_the_history(self, as_provider, booking):
        as_provider.patch(
            f"/bookings/{booking.pk}/status", {"status": "cancelled", "reason": "Ill."}
        )
        event = BookingEvent.objects.last()
        assert event.data["reason"] == "Ill."
        assert event.data["was"] == {"status": "pending"}

    def test_an_owner_cannot_use_the_status_endpoint_even_to_cancel(self, as_user, booking):
        for status in ("confirmed", "cancelled"):
            response = as_user.patch(f"/bookings/{booking.pk}/status", {"status": status})
            problem(response, 403, "permission_denied")

    @pytest.mark.parametrize(
        ("content", "field"),
        [
            ({}, "status"),
            ({"status": "done"}, "status"),
            ({"status": None}, "status"),
            ({"status": "confirmed", "reason": None}, "reason"),
            ({"status": "confirmed", "reason": "r" * 501}, "reason"),
            ({"status": "confirmed", "start_time": "2999-01-01T10:00:00Z"}, "start_time"),
        ],
    )
    def test_an_invalid_status_request_is_refused(self, as_admin, booking, content, field):
        response = as_admin.patch(f"/bookings/{booking.pk}/status", content)
        problem(response, 400, "validation_error", field)
        assert history(booking) == ["booking.created"]

    def test_an_unknown_booking_is_not_found(self, as_admin):
        response = as_admin.patch(f"/bookings/{uuid4()}/status", {"status": "confirmed"})
        problem(response, 404, "not_found")


class TestDelete:
    def test_an_owner_can_delete_a_booking_before_it_starts(self, as_user, booking, service):
        response = as_user.delete(f"/bookings/{booking.pk}")
        assert (response.status_code, response.content) == (204, b"")
        problem(as_user.get(f"/bookings/{booking.pk}"), 404, "not_found")
        problem(as_user.delete(f"/bookings/{booking.pk}"), 404, "not_found")
        assert as_user.post("/bookings", body(service)).status_code == 201

    def test_the_history_of_a_deleted_booking_is_kept(self, as_user, booking, user):
        as_user.delete(f"/bookings/{booking.pk}")
        assert history(booking) == ["booking.created", "booking.cancelled", "booking.deleted"]
        assert BookingEvent.objects.last().actor == user

    @pytest.mark.parametrize("seconds", [0, 1, 7200])
    def test_an_owner_cannot_delete_a_booking_that_has_started(self, api, user, booking, seconds):
        with time_machine.travel(TUESDAY + timedelta(seconds=seconds), tick=False):
            response = api.as_(user).delete(f"/bookings/{booking.pk}")
        problem(response, 403, "booking_started")
        assert Booking.objects.exists()

    def test_an_owner_can_delete_a_booking_one_second_before_it_starts(self, api, user, booking):
        with time_machine.travel(TUESDAY - timedelta(seconds=1), tick=False):
            assert api.as_(user).delete(f"/bookings/{booking.pk}").status_code == 204

    def test_an_admin_can_delete_a_booking_that_has_started(self, api, admin, booking):
        with time_machine.travel(TUESDAY + HOUR, tick=False):
            assert api.as_(admin).delete(f"/bookings/{booking.pk}").status_code == 204

    def test_providers_and_strangers_cannot_delete_a_booking(self, api, as_provider, booking):
        for client in (as_provider, api.as_(UserFactory()), api.as_(ProviderFactory())):
            problem(client.delete(f"/bookings/{booking.pk}"), 403, "permission_denied")
        assert Booking.objects.exists()


class TestHistory:
    def test_every_change_is_recorded_with_its_actor_and_outcome(
        self, as_user, as_provider, user, provider, service
    ):
        pk = as_user.post("/bookings", body(service)).json()["id"]
        later = TUESDAY + 3 * HOUR
        as_user.patch(f"/bookings/{pk}", {"start_time": iso(later)})
        as_provider.patch(f"/bookings/{pk}", {"status": "confirmed"})
        as_user.patch(f"/bookings/{pk}", {"status": "cancelled"})
        as_user.delete(f"/bookings/{pk}")
        events = list(BookingEvent.objects.filter(booking_id=pk))
        assert [(event.type, event.actor, event.data["status"]) for event in events] == [
            ("booking.created", user, "pending"),
            ("booking.rescheduled", user, "pending"),
            ("booking.confirmed", provider, "confirmed"),
            ("booking.cancelled", user, "cancelled"),
            ("booking.deleted", user, "cancelled"),
        ]
        periods = [
            (
                datetime.fromisoformat(event.data["start_time"]),
                datetime.fromisoformat(event.data["end_time"]),
            )
            for event in events
        ]
        assert periods == [(TUESDAY, TUESDAY + HOUR)] + [(later, later + HOUR)] * 4
        was = events[1].data["was"]
        assert datetime.fromisoformat(was["start_time"]) == TUESDAY
        assert [event.data["seat"] for event in events] == [1] * 5
        assert [event.at for event in events] == sorted(event.at for event in events)

    def test_a_start_with_a_fraction_of_a_second_is_the_same_in_all_events(self, user, service):
        start = TUESDAY.replace(microsecond=500000)
        booking = services.create_booking(
            actor=user, service_id=service.pk, start_time=start, at=timezone.now()
        )
        services.cancel_booking(booking_id=booking.pk, actor=user, at=timezone.now())
        created, cancelled = BookingEvent.objects.all()
        for name in ("start_time", "end_time"):
            assert datetime.fromisoformat(created.data[name]) == datetime.fromisoformat(
                cancelled.data[name]
            )

    def test_refused_changes_are_not_recorded(self, as_user, as_admin, booking):
        as_user.patch(f"/bookings/{booking.pk}", {"status": "confirmed"})
        as_admin.patch(f"/bookings/{booking.pk}", {"status": "held"})
        assert history(booking) == ["booking.created"]


@contextmanager
def failing_history():
    """Make PostgreSQL refuse every new event."""
    run(
        "CREATE FUNCTION event_insert_fails() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'event insert fails'; END $$"
    )
    run(
        "CREATE TRIGGER event_insert_fails BEFORE INSERT ON bookings_bookingevent"
        " FOR EACH ROW EXECUTE FUNCTION event_insert_fails()"
    )
    try:
        yield
    finally:
        run("DROP FUNCTION event_insert_fails CASCADE")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "change",
    [
        lambda booking: services.create_booking(
            actor=booking.user,
            service_id=booking.service_id,
            start_time=TUESDAY + 9 * HOUR,
            at=timezone.now(),
        ),
        lambda booking: services.reschedule_booking(
            booking_id=booking.pk,
            actor=booking.user,
            start_time=TUESDAY + 9 * HOUR,
            at=timezone.now(),
        ),
        lambda booking: services.cancel_booking(
            booking_id=booking.pk, actor=booking.user, at=timezone.now()
        ),
        lambda booking: services.change_status(
            booking_id=booking.pk,
            actor=booking.calendar.provider,
            status="confirmed",
            at=timezone.now(),
        ),
        lambda booking: services.delete_booking(
            booking_id=booking.pk, actor=booking.user, at=timezone.now()
        ),
    ],
    ids=["create", "reschedule", "cancel", "confirm", "delete"],
)
def test_a_change_whose_event_cannot_be_stored_is_rolled_back(change, service):
    booking = BookingFactory(service=service)
    before = list(Booking.objects.values())
    with failing_history(), pytest.raises(DatabaseError, match="event insert fails"):
        change(booking)
    assert list(Booking.objects.values()) == before
    change(booking)
    assert list(Booking.objects.values()) != before
    assert BookingEvent.objects.exists()


def found(client, query="", **headers):
    """Return the ids of the bookings in the list."""
    response = client.get(f"/bookings{query}", headers=headers)
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


def ids(*bookings):
    return [str(booking.pk) for booking in bookings]


class TestListScope:
    def test_a_user_sees_only_their_own_bookings(self, as_user, user):
        own = BookingFactory(user=user)
        BookingFactory()
        assert found(as_user) == ids(own)

    def test_a_row_of_the_list_equals_the_response_for_one_booking(self, as_user, user, booking):
        (row,) = as_user.get("/bookings").json()["results"]
        assert row == as_user.get(f"/bookings/{booking.pk}").json()

    def test_scope_provider_lists_bookings_on_the_providers_calendars(
        self, as_provider, provider, service
    ):
        theirs = BookingFactory(service=service)
        own = BookingFactory(user=provider)
        assert found(as_provider) == ids(own)
        assert found(as_provider, "?scope=provider") == ids(theirs)

    @pytest.mark.parametrize("role", ["user", "provider", "admin"])
    def test_scope_provider_becomes_empty_only_if_the_provider_gets_the_role_user(
        self, as_provider, provider, service, role
    ):
        BookingFactory(service=service)
        provider.role = role
        provider.save()
        assert len(found(as_provider, "?scope=provider")) == (role != "user")

    def test_scope_provider_is_empty_without_calendars(self, as_user, user):
        BookingFactory(user=user)
        assert found(as_user, "?scope=provider") == []

    def test_an_admin_sees_all_bookings_or_the_bookings_of_one_user(self, as_admin, user):
        first = BookingFactory(user=user)
        second = BookingFactory(start_time=TUESDAY + HOUR)
        assert found(as_admin) == ids(first, second)
        assert found(as_admin, f"?user_id={user.pk}") == ids(first)
        assert found(as_admin, "?scope=provider") == []

    def test_users_and_providers_cannot_filter_by_user(self, as_user, as_provider, user):
        for client in (as_user, as_provider):
            problem(client.get(f"/bookings?user_id={user.pk}"), 403, "permission_denied")

    def test_filters_do_not_show_bookings_of_other_users(self, as_user, service):
        BookingFactory(service=service)
        for query in (
            f"?service_id={service.pk}",
            f"?calendar_id={service.calendar_id}",
            "?from=2999-01-01&to=2999-01-01",
            "?status=pending",
            "?cursor=",
        ):
            assert found(as_user, query) == []


class TestListFilters:
    def test_bookings_are_found_by_one_or_more_states(self, as_admin):
        kept = {
            status: BookingFactory(status=status, start_time=TUESDAY + number * HOUR)
            for number, status in enumerate(Status)
        }
        for status, booking in kept.items():
            assert found(as_admin, f"?status={status.value}") == ids(booking)
        assert found(as_admin, "?status=pending,cancelled") == ids(
            kept[Status.PENDING], kept[Status.CANCELLED]
        )

    def test_a_status_filter_accepts_at_most_as_many_values_as_there_are_statuses(self, as_admin):
        most = len(Status)
        names = ",".join([*Status, "held"])
        assert as_admin.get(f"/bookings?status={names.removesuffix(',held')}").status_code == 200
        refusal = as_admin.get(f"/bookings?status={names}")
        problem(refusal, 400, "validation_error", "status")
        assert f"Send at most {most} values." in refusal.content.decode()

    def test_bookings_are_found_by_service_and_calendar(self, as_admin, service):
        sibling = ServiceFactory(calendar=service.calendar)
        first = BookingFactory(service=service)
        second = BookingFactory(service=sibling, start_time=TUESDAY + HOUR)
        BookingFactory()
        assert found(as_admin, f"?service_id={service.pk}") == ids(first)
        assert found(as_admin, f"?calendar_id={service.calendar_id}") == ids(first, second)
        assert found(as_admin, f"?calendar_id={service.calendar_id}&service_id={uuid4()}") == []

    @pytest.mark.parametrize(
        ("query", "overlaps"),
        [
            # The booking takes place from 10:00 to 11:00.
            ("?from=2999-01-01T10:59:59Z", True),
            ("?from=2999-01-01T11:00:00Z", False),
            ("?to=2999-01-01T10:00:00Z", False),
            ("?to=2999-01-01T10:00:01Z", True),
            ("?from=2999-01-01T10:15:00Z&to=2999-01-01T10:45:00Z", True),
            ("?from=2999-01-01T09:00:00Z&to=2999-01-01T12:00:00Z", True),
            ("?from=2999-01-01T11:00:00Z&to=2999-01-01T12:00:00Z", False),
            ("?from=2999-01-01T12:30:00%2B02:00", True),
            ("?from=2999-01-01T13:00:00%2B02:00", False),
            ("?from=2999-01-01", True),
            ("?from=2999-01-02", False),
            ("?to=2998-12-31", False),
            ("?to=2999-01-01", True),
            ("?from=2999-01-01&to=2999-01-01", True),
            ("?from=2999-01-02&to=2998-12-31", False),
        ],
    )
    def test_bookings_are_found_by_a_period_that_they_overlap(self, as_admin, query, overlaps):
        booking = BookingFactory()
        assert found(as_admin, query) == (ids(booking) if overlaps else [])

    @pytest.mark.parametrize(
        ("zone", "day", "overlaps"),
        [
            # 10:00 to 11:00 UTC is 00:00 to 01:00 of the next day in Kiritimati, and 23:00 to
            # 24:00 of the previous day in Niue.
            ("Pacific/Kiritimati", "2999-01-01", False),
            ("Pacific/Kiritimati", "2999-01-02", True),
            ("Pacific/Niue", "2998-12-31", True),
            ("Pacific/Niue", "2999-01-01", False),
            ("Europe/Paris", "2999-01-01", True),
        ],
    )
    def test_a_date_in_a_filter_is_a_day_in_the_requested_zone(self, as_admin, zone, day, overlaps):
        booking = BookingFactory()
        expected = ids(booking) if overlaps else []
        assert found(as_admin, f"?from={day}&to={day}&tz={zone}") == expected
        assert found(as_admin, f"?from={day}&to={day}", **{"Time-Zone": zone}) == expected

    def test_the_day_on_which_clocks_go_back_has_25_hours(self, as_admin):
        # In Paris, 2026-10-25 lasts from 22:00 UTC on the previous day to 23:00 UTC.
        bookings = [
            BookingFactory(start_time=datetime(2026, 10, 24, 21, tzinfo=UTC) + number * HOUR)
            for number in (0, 1, 25, 26)
        ]
        query = "?from=2026-10-25&to=2026-10-25&tz=Europe/Paris"
        assert found(as_admin, query) == ids(*bookings[1:3])

    def test_filters_are_combined(self, as_admin, user, service):
        BookingFactory(user=user, service=service, status=Status.CANCELLED)
        wanted = BookingFactory(user=user, service=service)
        BookingFactory(user=user)
        BookingFactory(service=service, seat=2)
        BookingFactory(user=user, service=service, start_time=TUESDAY + 48 * HOUR)
        query = f"?user_id={user.pk}&service_id={service.pk}&status=pending,confirmed&to=2999-01-01"
        assert found(as_admin, query) == ids(wanted)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("status=done", "status"),
            ("status=pending,done", "status"),
            ("status=PENDING", "status"),
            ("status=,", "status"),
            ("status=pending,", "status"),
            ("service_id=x", "service_id"),
            ("calendar_id=7", "calendar_id"),
            ("user_id=me", "user_id"),
            ("scope=all", "scope"),
            ("from=yesterday", "from"),
            ("from=2999-01-01T10:00:00", "from"),
            ("from=2999-01-01T10:00:00+00:00", "from"),  # an unencoded + is a space
            ("from=2999-13-01", "from"),
            ("to=2999-02-30", "to"),
            ("to=0000-00-00", "to"),
            ("from=9999-12-31", "from"),
            ("to=0001-01-01", "to"),
            ("from=%00", "from"),
            ("ordering=price", "ordering"),
            ("ordering=start_time,,", "ordering"),
            ("ordering=--start_time", "ordering"),
            ("ordering=user__password", "ordering"),
            ("state=pending", "state"),
            ("user=1", "user"),
            ("tz=Mars/Olympus", "tz"),
        ],
    )
    def test_an_invalid_filter_is_named(self, as_admin, query, field):
        problem(as_admin.get(f"/bookings?{query}"), 400, "validation_error", field)


class TestListOrder:
    @pytest.fixture
    def bookings(self):
        """Return three bookings, which sort differently by start and by creation time."""
        return [
            BookingFactory(start_time=TUESDAY + start * HOUR, created_at=TUESDAY - created * HOUR)
            for start, created in ((0, 2), (1, 3), (2, 1))
        ]

    @pytest.mark.parametrize(
        ("query", "order"),
        [
            ("", [0, 1, 2]),
            ("?ordering=start_time", [0, 1, 2]),
            ("?ordering=-start_time", [2, 1, 0]),
            ("?ordering=created_at", [1, 0, 2]),
            ("?ordering=-created_at", [2, 0, 1]),
            ("?ordering=start_time,created_at", [0, 1, 2]),
        ],
    )
    def test_the_list_is_ordered_by_start_or_creation_time(self, as_admin, bookings, query, order):
        assert found(as_admin, query) == ids(*(bookings[index] for index in order))

    @pytest.mark.parametrize("ordering", ["start_time", "-start_time", "-created_at"])
    def test_pages_do_not_overlap_if_all_bookings_have_the_same_times(self, as_admin, ordering):
        service = ServiceFactory(capacity=10)
        expected = {
            str(BookingFactory(service=service, seat=seat, created_at=TUESDAY).pk)
            for seat in range(1, 8)
        }
        pages = [
            found(as_admin, f"?ordering={ordering}&limit=2&page={page}") for page in (1, 2, 3, 4)
        ]
        assert [len(page) for page in pages] == [2, 2, 2, 1]
        assert {pk for page in pages for pk in page} == expected

    @pytest.mark.parametrize("ordering", ["start_time", "-start_time", "created_at"])
    def test_cursors_read_every_booking_once_forwards_and_backwards(self, as_admin, ordering):
        service = ServiceFactory(capacity=2)
        for number in range(7):
            BookingFactory(
                service=service,
                seat=number % 2 + 1,
                start_time=TUESDAY + number // 2 * HOUR,
                created_at=TUESDAY,
            )
        expected = found(as_admin, f"?ordering={ordering}")
        page = as_admin.get(f"/bookings?ordering={ordering}&limit=3&cursor=").json()
        assert "count" not in page
        assert page["previous"] is None
        pages = [page]
        while page["next"]:
            page = as_admin.get(page["next"]).json()
            pages.append(page)
        assert [row["id"] for page in pages for row in page["results"]] == expected
        back = [page]
        while page["previous"]:
            page = as_admin.get(page["previous"]).json()
            back.insert(0, page)
        assert [row["id"] for page in back for row in page["results"]] == expected

    def test_a_cursor_is_not_disturbed_by_new_or_deleted_bookings(self, as_admin):
        first, second = (BookingFactory(start_time=TUESDAY + n * HOUR) for n in (1, 2))
        page = as_admin.get("/bookings?limit=1&cursor=").json()
        BookingFactory(start_time=TUESDAY)
        first.delete()
        assert [row["id"] for row in as_admin.get(page["next"]).json()["results"]] == ids(second)


@pytest.mark.parametrize(
    ("currency", "price", "shown"), [("JPY", "1500", "1500"), ("KWD", "1.5", "1.500")]
)
def test_a_price_shows_the_decimals_of_its_currency(as_user, currency, price, shown):
    service = ServiceFactory(price=Decimal(price), currency=currency)
    content = as_user.post("/bookings", body(service)).json()
    assert content["price"] == shown
    assert as_user.get(f"/bookings/{content['id']}").json()["price"] == shown
    assert as_user.get("/bookings").json()["results"][0]["price"] == shown


def test_a_price_in_euros_is_a_string_with_two_decimals(as_user):
    service = ServiceFactory(price=Decimal("7"), currency="EUR")
    content = as_user.post("/bookings", body(service)).json()
    assert (content["price"], content["currency"]) == ("7.00", "EUR")
    assert as_user.get(f"/bookings/{content['id']}").json()["price"] == "7.00"
