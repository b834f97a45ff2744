"""The details of a booking: its attendee, its notes, and the reason for its cancellation."""

from datetime import timedelta

import pytest
import time_machine
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory, staff
from bookings import services
from bookings.events import REPORTED_TYPES
from bookings.mails.occasions import occasions
from bookings.models import Booking, BookingEvent
from bookings.payloads import payloads
from bookings.slots import services as slots
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookings.viewsets import DETAILS
from bookit.errors import Forbidden
from bookit.tests.crowd import at_once, until_waiting
from bookit.tests.expect import problem
from bookit.tests.valid_requests import BODIES
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
RUI = {
    "attendee_name": "Rui",
    "attendee_email": "rui@example.com",
    "attendee_phone": "+351 933 333 333",
}
SECRET = "I am in hospital."


@pytest.fixture
def people():
    return {
        "owner": UserFactory(name="Ana", email="ana@example.com", phone="+351 912 345 678"),
        "provider": ProviderFactory(),
        "admin": AdminFactory(),
    }


@pytest.fixture
def service(people):
    return ServiceFactory(calendar=CalendarFactory(provider=people["provider"]))


@pytest.fixture
def booking(people, service):
    """Return a pending booking that names no attendee."""
    return services.create_booking(
        actor=people["owner"], service_id=service.pk, start_time=TUESDAY, at=timezone.now()
    )


def attendee(content):
    return tuple(content[f"attendee_{name}"] for name in ("name", "email", "phone"))


def test_every_detail_can_be_changed(api, booking, people):
    """A detail that `change_details` does not know would be ignored, with a 200."""
    sent = BODIES["PATCH /bookings/{id}"][1]
    assert sent.keys() == {*DETAILS}
    owner, path = api.as_(people["owner"]), f"/bookings/{booking.pk}"
    assert owner.patch(path, sent).status_code == 200
    shown = owner.get(path).json()
    assert {name: shown[name] for name in sent} == sent


def events(booking):
    return [*BookingEvent.objects.filter(booking_id=booking.pk)]


ANA = ("Ana", "ana@example.com", "+351 912 345 678")


class TestAttendee:
    @pytest.mark.parametrize("who", ["owner", "provider", "admin"])
    def test_the_attendee_is_the_user_who_booked_if_nobody_was_named(
        self, api, people, booking, who
    ):
        client = api.as_(people[who])
        scope = "?scope=provider" if who == "provider" else ""
        [row] = client.get(f"/bookings{scope}").json()["results"]
        [paged] = client.get(f"/bookings?cursor=&{scope[1:]}").json()["results"]
        shown = client.get(f"/bookings/{booking.pk}").json()
        assert attendee(row) == attendee(paged) == attendee(shown) == ANA
        assert row == paged == shown

    def test_the_response_to_a_new_booking_shows_the_attendee(self, api, people, service):
        body = {"service_id": str(service.pk), "start_time": "2999-01-02T10:00:00Z"}
        assert attendee(api.as_(people["owner"]).post("/bookings", body).json()) == ANA
        body |= {"start_time": "2999-01-03T10:00:00Z", "user_id": str(people["owner"].pk)}
        assert attendee(api.as_(people["admin"]).post("/bookings", body).json()) == ANA

    @pytest.mark.parametrize("field", RUI)
    def test_each_given_field_replaces_the_field_of_the_user(self, api, people, service, field):
        body = {"service_id": str(service.pk), "start_time": "2999-01-02T10:00:00Z"}
        client = api.as_(people["owner"])
        made = client.post("/bookings", {**body, field: RUI[field]}).json()
        expected = dict(zip(RUI, ANA, strict=True)) | {field: RUI[field]}
        assert expected.items() <= made.items()
        assert client.get(f"/bookings/{made['id']}").json() == made

    def test_a_change_of_the_account_changes_the_shown_attendee(self, api, people, booking):
        people["owner"].name = "Ana Silva"
        people["owner"].save()
        shown = api.as_(people["provider"]).get(f"/bookings/{booking.pk}").json()
        assert shown["attendee_name"] == "Ana Silva"

    def test_webhooks_and_events_show_the_attendee(self, api, people, booking):
        [payload] = payloads(events(booking))
        assert attendee(payload["data"]) == ANA
        shown = api.as_(people["owner"]).get(f"/bookings/{booking.pk}").json()
        assert payload["data"].keys() == shown.keys()

    def test_every_response_to_a_change_shows_the_attendee(self, api, people, booking):
        for change in (
            {},
            {"start_time": "2999-01-01T12:00:00Z"},
            {"status": "confirmed"},
            {"status": "cancelled"},
        ):
            response = api.as_(people["admin"]).patch(f"/bookings/{booking.pk}", change)
            assert attendee(response.json()) == ANA


class TestDetails:
    @pytest.mark.parametrize("who", ["owner", "provider", "admin"])
    def test_the_owner_the_provider_and_admins_can_change_the_details(
        self, api, people, booking, who
    ):
        client = api.as_(people[who])
        response = client.patch(f"/bookings/{booking.pk}", {**RUI, "notes": " By the window. "})
        assert response.status_code == 200
        shown = response.json()
        assert {**RUI, "notes": "By the window."}.items() <= shown.items()
        assert shown["updated_at"] > shown["created_at"]
        assert client.get(f"/bookings/{booking.pk}").json() == shown

    def test_an_empty_field_makes_the_user_the_attendee_again(self, api, people, booking):
        client = api.as_(people["owner"])
        client.patch(f"/bookings/{booking.pk}", RUI)
        response = client.patch(f"/bookings/{booking.pk}", dict.fromkeys(RUI, ""))
        assert attendee(response.json()) == ANA

    def test_the_history_names_what_changed_but_contains_no_personal_data(
        self, api, people, booking
    ):
        client = api.as_(people["owner"])
        client.patch(f"/bookings/{booking.pk}", {**RUI, "notes": SECRET})
        [_, changed] = client.get(f"/bookings/{booking.pk}/history").json()["results"]
        assert changed["type"] == "booking.changed"
        assert changed["actor_id"] == str(people["owner"].pk)
        assert changed["data"]["changed"] == [*RUI, "notes"]
        stored = str(events(booking)[1].data)
        for text in (*RUI.values(), *ANA, SECRET):
            assert text not in stored

    def test_a_change_of_the_notes_causes_no_email_or_webhook_message(self, booking, people):
        services.change_details(
            booking_id=booking.pk, actor=people["owner"], at=timezone.now(), details={"notes": "!"}
        )
        [_, changed] = events(booking)
        assert changed.type not in REPORTED_TYPES
        [occasion] = occasions([changed.calendar_id], [changed.pk])
        assert occasion.audiences == []

    def test_sending_back_the_shown_values_changes_nothing(self, api, people, booking):
        client = api.as_(people["owner"])
        before = Booking.objects.values().get(pk=booking.pk)
        shown = client.get(f"/bookings/{booking.pk}").json()
        for body in (
            {"attendee_name": "Ana"},
            {"notes": ""},
            dict(zip(RUI, ANA, strict=True)),
            shown,
        ):
            assert client.patch(f"/bookings/{booking.pk}", body).json() == shown
        assert Booking.objects.values().get(pk=booking.pk) == before
        assert len(events(booking)) == 1

    def test_emptying_a_field_that_is_empty_already_is_no_change(self, api, people, booking):
        client = api.as_(people["owner"])
        before = client.get(f"/bookings/{booking.pk}").json()
        response = client.patch(f"/bookings/{booking.pk}", {**dict.fromkeys(RUI, ""), "notes": ""})
        assert response.json() == before
        assert [event.type for event in events(booking)] == ["booking.created"]

    def test_a_client_can_send_back_the_booking_with_one_changed_detail(self, api, people, booking):
        client = api.as_(people["owner"])
        shown = client.get(f"/bookings/{booking.pk}").json()
        client.patch(f"/bookings/{booking.pk}", {**shown, "notes": "By the window."})
        stored = Booking.objects.get(pk=booking.pk)
        # The stored name is still empty, so the booking keeps showing the name of the account.
        assert (stored.attendee_name, stored.notes) == ("", "By the window.")
        assert events(booking)[1].data["changed"] == ["notes"]

    @pytest.mark.parametrize("status", Booking.Status)
    def test_details_can_change_in_every_status(self, people, status):
        booking = BookingFactory(user=people["owner"], status=status)
        services.change_details(
            booking_id=booking.pk, actor=people["owner"], at=timezone.now(), details={"notes": "!"}
        )
        booking.refresh_from_db()
        assert (booking.notes, booking.status) == ("!", status)

    @pytest.mark.parametrize("seconds", [0, 3600])
    def test_the_owner_can_change_details_only_until_the_start(self, api, people, booking, seconds):
        with time_machine.travel(TUESDAY + timedelta(seconds=seconds), tick=False):
            client = api.as_(people["owner"])
            response = client.patch(f"/bookings/{booking.pk}", {"notes": "Late."})
            problem(response, 403, "booking_started")
            # The owner may still send back the values that are shown, because they change nothing.
            shown = client.get(f"/bookings/{booking.pk}").json()
            assert client.patch(f"/bookings/{booking.pk}", shown).status_code == 200
            assert len(events(booking)) == 1
            for who in ("provider", "admin"):
                response = api.as_(people[who]).patch(f"/bookings/{booking.pk}", {"notes": who})
                assert response.json()["notes"] == who
        with time_machine.travel(TUESDAY - timedelta(seconds=1), tick=False):
            response = api.as_(people["owner"]).patch(f"/bookings/{booking.pk}", {"notes": "!"})
            assert response.status_code == 200

    def test_staff_need_the_permission_to_change_bookings(self, api, booking):
        path, change = f"/bookings/{booking.pk}", {"notes": "By the window"}
        reader = api.as_(staff(["bookings.view_booking"]))
        problem(reader.patch(path, change), 403, "permission_denied")
        with pytest.raises(Forbidden):
            services.change_details(
                booking_id=booking.pk,
                actor=staff(["bookings.view_booking"]),
                at=timezone.now(),
                details=change,
            )
        # Unlike the owner, staff may change details after the start.
        with time_machine.travel(TUESDAY + HOUR):
            receptionist = api.as_(staff(["bookings.change_booking"]))
            assert receptionist.patch(path, change).json()["notes"] == "By the window"

    def test_strangers_get_the_same_refusal_before_and_after_the_start(self, api, booking):
        stranger = UserFactory()
        for moment in (TUESDAY - HOUR, TUESDAY + HOUR):
            with time_machine.travel(moment, tick=False):
                response = api.as_(stranger).patch(f"/bookings/{booking.pk}", {"notes": "!"})
                problem(response, 403, "permission_denied")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("attendee_name", None),
            ("attendee_name", "A" * 201),
            ("attendee_email", "ana"),
            ("attendee_email", None),
            ("attendee_phone", "call me"),
            ("attendee_phone", None),
            ("notes", "n" * 2001),
            ("notes", None),
            ("notes", "\0"),
        ],
    )
    def test_details_are_validated_as_in_a_new_booking(
        self, api, people, service, booking, field, value
    ):
        client = api.as_(people["owner"])
        new = {"service_id": str(service.pk), "start_time": "2999-01-02T10:00:00Z"}
        for response in (
            client.post("/bookings", {**new, field: value}),
            client.patch(f"/bookings/{booking.pk}", {field: value}),
        ):
            problem(response, 400, "validation_error", field)
        assert len(events(booking)) == 1

    @pytest.mark.parametrize(
        "other", [{"start_time": "2999-01-01T12:00:00Z"}, {"status": "cancelled"}]
    )
    def test_details_cannot_change_together_with_the_time_or_the_status(
        self, api, people, booking, other
    ):
        response = api.as_(people["owner"]).patch(
            f"/bookings/{booking.pk}", {"notes": "!", **other}
        )
        problem(response, 400, "validation_error", "")
        assert len(events(booking)) == 1

    @pytest.mark.one_server("counts statements, and a cluster needs more of them")
    def test_a_change_takes_nine_queries(self, api, people, booking):
        with CaptureQueriesContext(connection) as queries:
            api.as_(people["owner"]).patch(f"/bookings/{booking.pk}", {"notes": "!"})
        # Read the account and the booking. Look up the calendar, lock the booking, write the event,
        # change the booking, and read the time of the change. Begin and release a savepoint.
        assert len(queries) == 9, queries.captured_queries


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("locks", [True, False])
def test_a_change_of_details_waits_for_a_change_of_the_status(people, service, monkeypatch, locks):
    """Without the lock, the event has the status from before the confirmation."""
    booking = BookingFactory(user=people["owner"], service=service)
    call = {"booking_id": booking.pk, "at": timezone.now()}
    if not locks:  # Control: the booking is read without a lock.
        rows = Booking.objects.select_related("service", "calendar", "user")
        monkeypatch.setattr(services, "_locked_booking", lambda pk: rows.get(pk=pk))

    def commit():
        try:
            until_waiting(1)
        finally:
            transaction.commit()

    transaction.set_autocommit(False)
    try:
        services.change_status(**call, actor=people["provider"], status="confirmed")
        [outcome] = at_once(
            [
                lambda: services.change_details(
                    **call, actor=people["owner"], details={"notes": "!"}
                )
            ],
            meanwhile=commit,
        )
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert outcome.error is None
    booking.refresh_from_db()
    assert (booking.status, booking.notes) == ("confirmed", "!")
    assert [(event.type, event.data["status"]) for event in events(booking)] == [
        ("booking.confirmed", "confirmed"),
        ("booking.changed", "confirmed" if locks else "pending"),
    ]


class TestReason:
    @pytest.mark.parametrize("who", ["owner", "provider", "admin"])
    def test_a_reason_may_be_given_when_a_booking_is_cancelled(self, api, people, booking, who):
        body = {"status": "cancelled", "reason": SECRET}
        response = api.as_(people[who]).patch(f"/bookings/{booking.pk}", body)
        assert response.status_code == 200
        assert response.json()["cancellation_reason"] == SECRET
        for reader in people.values():
            client = api.as_(reader)
            shown = client.get(f"/bookings/{booking.pk}").json()
            assert shown["cancellation_reason"] == SECRET
            history = client.get(f"/bookings/{booking.pk}/history").json()["results"]
            assert [event["data"].get("reason") for event in history] == [None, SECRET]

    def test_the_reason_of_the_user_is_stored_only_in_the_booking_and_can_be_erased(
        self, api, people, booking
    ):
        services.cancel_booking(
            booking_id=booking.pk, actor=people["owner"], at=timezone.now(), reason=SECRET
        )
        assert SECRET not in str([event.data for event in events(booking)])
        [_, payload] = payloads(events(booking))
        assert payload["data"]["cancellation_reason"] == SECRET
        Booking.objects.filter(pk=booking.pk).update(cancellation_reason="")
        history = api.as_(people["admin"]).get(f"/bookings/{booking.pk}/history").json()["results"]
        assert "reason" not in history[1]["data"]

    def test_the_status_endpoint_also_stores_the_reason(self, api, people, booking):
        body = {"status": "cancelled", "reason": "Ill."}
        shown = api.as_(people["provider"]).patch(f"/bookings/{booking.pk}/status", body).json()
        assert shown["cancellation_reason"] == "Ill."

    def test_the_reason_for_another_status_is_only_in_the_history(self, api, people, booking):
        body = {"status": "confirmed", "reason": "Paid."}
        shown = api.as_(people["provider"]).patch(f"/bookings/{booking.pk}/status", body).json()
        assert shown["cancellation_reason"] == ""
        assert events(booking)[1].data["reason"] == "Paid."

    def test_a_cancellation_with_a_reason_is_refused_if_the_booking_is_cancelled_already(
        self, api, people, booking
    ):
        owner, path = api.as_(people["owner"]), f"/bookings/{booking.pk}"
        body = {**owner.get(path).json(), "status": "cancelled", "reason": SECRET}
        services.cancel_booking(
            booking_id=booking.pk, actor=people["provider"], at=timezone.now(), reason="Ill."
        )

        problem(owner.patch(path, body), 409, "invalid_transition")

    def test_a_booking_that_is_cancelled_with_its_slot_has_a_reason(self, people):
        slot = SlotFactory(service__calendar=CalendarFactory(provider=people["provider"]))
        booking = services.create_booking(actor=people["owner"], slot_id=slot.pk, at=timezone.now())
        slots.change_slot(
            slot_id=slot.pk, actor=people["provider"], status="cancelled", at=timezone.now()
        )
        booking.refresh_from_db()
        assert booking.cancellation_reason == "The slot was cancelled."

    @pytest.mark.parametrize(
        "body",
        [
            {"reason": SECRET},
            {"reason": SECRET, "status": "confirmed"},
            {"reason": SECRET, "notes": "!"},
            {"reason": SECRET, "start_time": "2999-01-01T12:00:00Z"},
            {"reason": None, "status": "cancelled"},
            {"reason": "r" * 501, "status": "cancelled"},
        ],
    )
    def test_a_reason_must_be_valid_and_come_with_a_cancellation(self, api, people, booking, body):
        """Only the status endpoint accepts a reason for another status."""
        response = api.as_(people["admin"]).patch(f"/bookings/{booking.pk}", body)
        problem(response, 400, "validation_error", "reason")
        assert len(events(booking)) == 1

    def test_a_reason_cannot_be_given_twice(self, api, people, booking):
        client = api.as_(people["owner"])
        body = {"status": "cancelled", "reason": SECRET}
        client.patch(f"/bookings/{booking.pk}", body)
        response = client.patch(f"/bookings/{booking.pk}", {**body, "reason": "Another."})
        problem(response, 409, "invalid_transition")
        assert client.get(f"/bookings/{booking.pk}").json()["cancellation_reason"] == SECRET
