"""Conditional requests: `ETag`, `If-None-Match` and `If-Match`."""

from datetime import datetime
from functools import partial
from typing import Any

import pytest

from accounts.models import User
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory, WebhookFactory
from bookit.tests import contract
from bookit.tests.crowd import at_once, run
from bookit.tests.expect import problem
from catalog.models import Calendar, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

# The entity tag of a resource consists of the version of its row, which is its `updated_at` in
# microseconds from 1970, and a digest of the response.
OLD = '"1-0123456789abcdef"'


@pytest.fixture
def admin(api):
    return api.as_(AdminFactory())


HOURS = [{"weekday": 0, "opens": "09:00", "closes": "10:00"}]
# For each kind of resource that admins change, except roles (see `test_roles`): the path of its
# list, its factory, and a change.
RESOURCES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "user": ("/users", UserFactory, {"name": "New"}),
    "calendar": ("/calendars", CalendarFactory, {"name": "New"}),
    "hours": ("/calendars", CalendarFactory, {"opening_hours": HOURS}),
    "service": ("/services", ServiceFactory, {"title": "New"}),
    "slot": ("/slots", SlotFactory, {"capacity": 7}),
    "booking": ("/bookings", BookingFactory, {"status": "confirmed"}),
    "webhook": ("/webhooks", WebhookFactory, {"is_active": False}),
}
DELETABLE = ["calendar", "service", "slot", "booking", "webhook"]


def made(name):
    """Return the path of a new resource, and a change of it."""
    path, factory, change = RESOURCES[name]
    return f"{path}/{factory().pk}", change


def etag(client, path, **headers):
    response = client.get(path, headers=headers)
    assert response.status_code == 200, response.content
    return response["ETag"]


@pytest.mark.parametrize("name", RESOURCES)
class TestResources:
    def test_an_unchanged_resource_is_not_sent_again(self, admin, name):
        path, change = made(name)
        tag = etag(admin, path)
        known = admin.get(path, headers={"if-none-match": tag})
        assert (known.status_code, known.content, known["ETag"]) == (304, b"", tag)
        weak = admin.get(path, headers={"if-none-match": f'"other", W/{tag}'})
        assert weak.status_code == 304
        assert admin.patch(path, change).status_code == 200
        changed = admin.get(path, headers={"if-none-match": tag})
        assert (changed.status_code, changed["ETag"] != tag) == (200, True)

    def test_a_change_succeeds_if_the_resource_has_not_changed(self, admin, name):
        path, change = made(name)
        response = admin.patch(path, change, headers={"if-match": etag(admin, path)})
        assert response.status_code == 200, response.content
        # The entity tag of the response has the new version, so the next change can name it.
        assert response["ETag"].split("-")[0] == etag(admin, path).split("-")[0]

    def test_a_change_is_refused_if_the_resource_has_changed(self, admin, name):
        path, change = made(name)
        tag = etag(admin, path)
        assert admin.patch(path, change).status_code == 200
        before = admin.get(path).json()
        problem(admin.patch(path, change, headers={"if-match": tag}), 412, "precondition_failed")
        # The version is compared before the body is validated.
        problem(
            admin.patch(path, {"nonsense": 1}, headers={"if-match": tag}),
            412,
            "precondition_failed",
        )
        assert admin.get(path).json() == before

    def test_every_change_increases_updated_at(self, admin, name):
        path, change = made(name)
        before = datetime.fromisoformat(admin.get(path).json()["updated_at"])
        assert (
            admin.patch(path, change).json()["updated_at"] == admin.get(path).json()["updated_at"]
        )
        assert datetime.fromisoformat(admin.get(path).json()["updated_at"]) > before


@pytest.mark.parametrize("name", DELETABLE)
def test_an_older_version_cannot_be_deleted(admin, name):
    path, change = made(name)
    tag = etag(admin, path)
    admin.patch(path, change)
    problem(admin.delete(path, headers={"if-match": tag}), 412, "precondition_failed")
    assert admin.get(path).status_code == 200
    current = etag(admin, path)
    response = admin.delete(path, headers={"if-match": f"{OLD}, W/{current}"})
    assert response.status_code == 204, response.content


def test_an_older_version_of_a_review_can_be_neither_changed_nor_deleted(api):
    review = ReviewFactory()
    author, path = api.as_(review.user), f"/reviews/{review.pk}"
    tag = etag(author, path)
    assert author.patch(path, {"comment": "A"}, headers={"if-match": tag}).status_code == 200
    stale = author.patch(path, {"comment": "B"}, headers={"if-match": tag})
    problem(stale, 412, "precondition_failed")
    problem(author.delete(path, headers={"if-match": tag}), 412, "precondition_failed")
    assert author.get(path).json()["comment"] == "A"


def test_leaving_a_waitlist_is_refused_if_the_entity_tag_is_not_current(api):
    slot = SlotFactory(capacity=1)
    BookingFactory(service=slot.service, slot=slot, start_time=slot.start_time)
    user = api.as_(UserFactory())
    path = f"/slots/{slot.pk}/waitlist"
    path = f"{path}/{user.post(path).json()['id']}"
    current = etag(user, path)
    problem(user.delete(path, headers={"if-match": OLD}), 412, "precondition_failed")
    assert user.delete(path, headers={"if-match": current}).status_code == 204


def test_a_star_matches_any_version(admin):
    path, change = made("service")
    assert admin.patch(path, change, headers={"if-match": "*"}).status_code == 200
    unknown = path[:-1] + ("0" if path[-1] != "0" else "1")
    problem(admin.patch(unknown, change, headers={"if-match": "*"}), 404, "not_found")


@pytest.mark.parametrize("header", ["", "nonsense", '"', OLD, '"zz"', '"' + "f" * 5000 + '"'])
def test_an_unknown_entity_tag_is_refused(admin, header):
    path, change = made("service")
    problem(admin.patch(path, change, headers={"if-match": header}), 412, "precondition_failed")


def test_the_profile_of_the_signed_in_user_has_an_entity_tag(api):
    user = api.as_(UserFactory())
    tag = etag(user, "/me")
    assert user.patch("/me", {"name": "A"}, headers={"if-match": tag}).status_code == 200
    stale = user.patch("/me", {"name": "B"}, headers={"if-match": tag})
    problem(stale, 412, "precondition_failed")
    assert user.get("/me").json()["name"] == "A"


def test_signing_in_does_not_change_the_version_of_a_user(api):
    user = UserFactory()
    before = User.objects.get().updated_at
    credentials = {"email": user.email, "password": PASSWORD}
    assert api.post("/auth/login", credentials).status_code == 200
    after = User.objects.get()
    assert after.last_login is not None
    after.save()  # Saving all columns, too, is no change if their values stay the same.
    assert User.objects.get().updated_at == before


def test_the_entity_tag_depends_on_the_time_zone_of_the_representation(admin):
    path, change = made("booking")
    utc, tokyo = etag(admin, path), etag(admin, path, **{"time-zone": "Asia/Tokyo"})
    assert utc != tokyo
    # Both entity tags have the same version, so a change may name either tag.
    assert admin.patch(path, change, headers={"if-match": tokyo}).status_code == 200


def test_a_slot_has_a_new_entity_tag_after_a_seat_is_taken(admin):
    slot = SlotFactory(capacity=3)
    tag = etag(admin, f"/slots/{slot.pk}")
    BookingFactory(service=slot.service, slot=slot)
    assert etag(admin, f"/slots/{slot.pk}") != tag
    assert etag(admin, f"/slots/{slot.pk}").split("-")[0] == tag.split("-")[0]


@pytest.mark.parametrize("path", ["/services", "/calendars", "/slots", "/reviews"])
def test_public_lists_have_entity_tags(api, path):
    review = ReviewFactory()
    slot = SlotFactory()
    tag = etag(api, path)
    assert api.get(path, headers={"if-none-match": tag}).status_code == 304
    Service.objects.update(title="New")
    Calendar.objects.update(name="New")
    slot.delete()
    review.delete()
    assert api.get(path, headers={"if-none-match": tag}).status_code == 200


def test_a_session_has_no_entity_tag(api):
    new = {"name": "Ada", "email": "ada@example.com", "password": "correct horse 1"}
    response = api.post("/auth/register", new)
    assert response.status_code == 201
    assert "ETag" not in response


def test_every_change_of_a_row_with_a_version_supports_if_match():
    """An action that changes or deletes a row with `updated_at` is `conditional`."""
    without = {
        label
        for label, operation in contract.documented_operations().items()
        if label.startswith(("PATCH", "DELETE"))
        and "If-Match" not in {each["name"] for each in operation["parameters"]}
    }
    assert without == {
        "DELETE /calendars/{calendar_id}/time-off/{id}",
        "DELETE /me/api-keys/{id}",
        "DELETE /me/sessions/{id}",
        "PATCH /me/provider",
    }


def test_an_action_that_does_not_support_if_match_refuses_the_header(admin):
    service = ServiceFactory()
    body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}
    response = admin.post("/bookings", body, headers={"if-match": "*"})
    problem(response, 400, "validation_error", "If-Match")
    assert not Booking.objects.exists()


class TestDatabase:
    def test_raw_sql_increases_updated_at(self):
        service = ServiceFactory()
        run("UPDATE catalog_service SET title = 'x'")
        assert Service.objects.get().updated_at > service.updated_at

    def test_updated_at_never_decreases(self):
        ServiceFactory()
        run("UPDATE catalog_service SET updated_at = '3000-01-01'")
        run("UPDATE catalog_service SET updated_at = '2000-01-01'")
        expected = datetime.fromisoformat("3000-01-01T00:00:00.000001+00:00")
        assert Service.objects.get().updated_at == expected

    def test_changing_the_terms_of_a_service_does_not_change_updated_at_of_its_calendar(self):
        service = ServiceFactory()
        before = Calendar.objects.get()
        run("UPDATE catalog_service SET price = price + 1")
        after = Calendar.objects.get()
        assert (after.updated_at, after.version) == (before.updated_at, before.version + 1)
        assert after.pk == service.calendar_id


@pytest.mark.django_db(transaction=True)
def test_one_of_four_concurrent_changes_of_the_same_version_succeeds(api):
    admin = AdminFactory()
    for number in range(30):
        service = ServiceFactory()
        path = f"/services/{service.pk}"
        tag = etag(api, path)
        changes = [
            partial(
                api.as_(admin).patch,
                path,
                {"title": f"{number} {name}"},
                headers={"if-match": tag},
            )
            for name in range(4)
        ]
        statuses = sorted(outcome.value.status_code for outcome in at_once(changes))
        assert statuses == [200, 412, 412, 412]


@pytest.mark.django_db(transaction=True)
def test_without_the_trigger_several_changes_of_the_same_version_succeed(api):
    """Control for the test above: without the trigger, a write does not compare versions."""
    admin = AdminFactory()
    run("ALTER TABLE catalog_service DISABLE TRIGGER service_updated_at")
    try:
        for number in range(60):
            path = f"/services/{ServiceFactory().pk}"
            tag = etag(api, path)
            changes = [
                partial(
                    api.as_(admin).patch,
                    path,
                    {"title": f"{number} {name}"},
                    headers={"if-match": tag},
                )
                for name in range(4)
            ]
            statuses = [outcome.value.status_code for outcome in at_once(changes)]
            if statuses.count(200) > 1:
                return
        pytest.fail("no round had two successful changes of the same version")
    finally:
        run("ALTER TABLE catalog_service ENABLE TRIGGER service_updated_at")
