"""Users export and delete what is stored about them, and admins delete accounts."""

import json
from collections import Counter
from datetime import timedelta
from functools import partial
from weakref import finalize

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.core import mail
from django.db import IntegrityError, connection, models, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from psycopg.types.range import TimestamptzRange

from accounts import services as accounts
from accounts.extensions import ERASERS
from accounts.keys.models import ApiKey
from accounts.keys.services import create_key
from accounts.models import User
from accounts.privacy import services as privacy
from accounts.roles.services import create_role
from accounts.sessions import services as sessions
from accounts.sessions.models import Session
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, UserFactory
from bookings import services
from bookings.desk import services as desk
from bookings.models import Booking
from bookings.serializers import BookingSerializer
from bookings.tests.factories import (
    TUESDAY,
    BookingFactory,
    SlotFactory,
    WaitlistEntryFactory,
    WebhookFactory,
)
from bookings.tests.jobs import attendee_mail, work
from bookings.waitlist.models import WaitlistEntry
from bookings.webhooks.models import Attempt, Delivery
from bookit import deadlines
from bookit.idempotency.models import KeptResponse
from bookit.json import dumps_in_parts
from bookit.tests.crowd import at_once, behind_a_rival, run
from bookit.tests.expect import problem
from bookit.tests.test_architecture import LAYERS
from catalog.models import Calendar
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

# Ana's personal data. None of these words may be stored after she has deleted her account.
NAME, EMAIL, PHONE = "Ana Xavier", "ana.xavier@example.com", "+351 900 111 222"
NOTES, REASON, BROWSER, ADDRESS = "Allergic to latex", "Ana was rude", "AnaBrowser", "192.0.2.77"
ATTENDEE, ATTENDEE_EMAIL, NEW_EMAIL = "Tiago Xavier", "tiago@example.com", "ana.new@example.com"
STAFF_NOTE, ATTENDEE_PHONE, METADATA = "Ana pays late", "+351 900 333 444", "crm-ana-0042"
WORDS = [NAME, EMAIL, PHONE, NOTES, REASON, BROWSER, ADDRESS, ATTENDEE, ATTENDEE_EMAIL, NEW_EMAIL]
LANGUAGE = "ast-Latn"
WORDS += [STAFF_NOTE, ATTENDEE_PHONE, METADATA, LANGUAGE]

# Columns of text and JSON in which no test of an account's deletion looks for these words.
OTHER_COLUMNS = {
    # Other tests check that these are emptied, deleted or kept.
    *("accounts.User.language", "accounts.User.timezone", "accounts.User.password"),
    *("accounts.ApiKey.name", "accounts.ApiKey.prefix", "accounts.ApiKey.digest"),
    *("accounts.EmailedLink.email", "accounts.EmailedLink.purpose"),
    *("accounts.EmailedLink.token_hash", "reviews.Review.comment"),
    # What providers and admins offer and set up.
    *("accounts.Role.description", "catalog.Profile.biography", "catalog.Profile.picture_url"),
    *("catalog.Calendar.name", "catalog.Calendar.timezone", "catalog.Calendar.metadata"),
    *("catalog.Service.title", "catalog.Service.description", "catalog.Service.category"),
    *("catalog.Service.currency", "catalog.Service.metadata", "catalog.TimeOff.reason"),
    *("catalog.Category.name", "catalog.Word.text", "bookings.Booking.currency"),
    *("bookings.MailText.kind", "bookings.MailText.label", "bookings.MailText.attendee"),
    *("bookings.MailText.provider", "bookings.Webhook.url", "bookings.Webhook.since"),
    *("bookings.Webhook.secret", "bookings.Webhook.previous_secret"),
    "bookings.Webhook.disabled_reason",
    # Counts, codes and ids.
    *("bookings.Attempt.error", "bookings.BookingTally.counts", "bookings.BookingTally.positions"),
    *("bookings.Delivery.type", "idempotency.KeptResponse.fingerprint"),
    *("idempotency.KeptResponse.location", "jobs.JobTally.outcome", "jobs.JobTally.task"),
    *("jobs.Outbox.args", "jobs.Outbox.queue", "jobs.Outbox.task", "mails.MailCount.subject"),
}


TEXT = (models.CharField, models.TextField, models.JSONField, models.BinaryField)


def stored():
    """Return the content of all tables, as text, by table name."""
    tables = {}
    with connection.cursor() as cursor:
        # Write the bytes of stored responses as text.
        cursor.execute("SET LOCAL bytea_output = 'escape'")
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT to_jsonb(t)::text FROM "{table}" AS t')
            tables[table] = "\n".join(row for (row,) in cursor.fetchall())
    return tables


def places(words):
    """Return all pairs of a table and a word that the table contains."""
    return {(table, word) for table, text in stored().items() for word in words if word in text}


@pytest.fixture
def ana():
    return UserFactory(name=NAME, email=EMAIL, phone=PHONE, language="pt", verified_email=EMAIL)


@pytest.fixture
def helena():
    return ProviderFactory(name="Helena", email="helena@example.com")


@pytest.fixture
def service(helena):
    return ServiceFactory(calendar=CalendarFactory(provider=helena, name="Chair"))


@pytest.fixture
def activity(api, ana, helena, service):
    """Store Ana's personal data in every way. Return her review and the bookings that are left."""
    api.post(
        "/auth/login",
        {"email": EMAIL, "password": PASSWORD},
        headers={"user-agent": BROWSER},
        REMOTE_ADDR=ADDRESS,
    )
    hook = WebhookFactory(events=["booking.created", "booking.cancelled"])
    me = api.as_(ana)
    made = [
        me.post(
            "/bookings",
            {
                "service_id": str(service.pk),
                "start_time": (now() + timedelta(days=days)).isoformat(),
                "notes": NOTES,
                "attendee_name": ATTENDEE,
                "attendee_email": ATTENDEE_EMAIL,
                "attendee_phone": ATTENDEE_PHONE,
                "metadata": {"crm": METADATA},
                "language": LANGUAGE,
            },
            headers={"idempotency-key": f"{EMAIL} {days}"},
        )
        for days in (2, 3, 4, 5)
    ]
    assert {response.status_code for response in made} == {201}
    future, cancelled, done, deleted = (
        Booking.objects.get(pk=response.json()["id"]) for response in made
    )
    at = now()
    services.change_status(
        booking_id=cancelled.pk, status="cancelled", actor=helena, at=at, reason=REASON
    )
    services.change_status(booking_id=done.pk, status="completed", actor=helena, at=at)
    desk.add_note(booking_id=done.pk, actor=helena, text=STAFF_NOTE, at=at)
    review = ReviewFactory(booking=done, user=ana, comment="Lovely.")
    services.delete_booking(booking_id=deleted.pk, actor=ana, at=at)
    # A waiting email to the provider would be kept, with Ana's data. A failed one is deleted.
    run("UPDATE procrastinate_jobs SET status = 'failed' WHERE task_name ~ 'composed'")
    delivery = Delivery.objects.create(
        webhook=hook,
        calendar=done.calendar,
        event=done.events.earliest("id"),
        type="booking.created",
    )
    Attempt.objects.create(delivery=delivery, at=at, duration_ms=5, response=f"Hi {NAME}!")
    entry = WaitlistEntryFactory(slot=SlotFactory(), user=ana)
    app.configure_task("bookings.send_queue_mail").defer(entry_id=str(entry.pk))
    event = done.events.latest("id")
    app.configure_task("bookings.send_mail").defer(**attendee_mail(event))
    me.patch("/me", {"metadata": {"crm": METADATA}})
    me.patch("/me", {"email": NEW_EMAIL, "current_password": PASSWORD})
    me.post("/auth/verify-email/resend")
    api.post("/auth/password-reset", {"email": EMAIL})
    boss = AdminFactory(email="boss@example.com")
    site = Client()
    site.force_login(boss)
    form = {
        "email": EMAIL,
        "name": NAME,
        "role": "user",
        "timezone": "Asia/Tokyo",
        "language": "en",
    }
    page = f"/admin/accounts/user/{ana.pk}/change/"
    assert site.post(page, {**form, "is_active": "on", "phone": PHONE}).status_code == 302
    run(
        "INSERT INTO bookit_jobfailure SELECT id, now(), %s FROM procrastinate_jobs"
        " WHERE task_name ~ 'mail|follow_up'",
        [f"ValueError: {NAME}"],
    )
    return {"future": future, "cancelled": cancelled, "done": done, "review": review}


def delete(client, password=PASSWORD):
    return client.delete("/me", {"password": password})


# --- export -----------------------------------------------------------------------------------


def test_the_export_contains_the_personal_data_and_the_activity_of_a_user(api, ana, activity):
    response = api.as_(ana).get("/me/export")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response["Content-Disposition"] == 'attachment; filename="bookit-export.json"'
    exported = response.json()
    text = json.dumps(exported, ensure_ascii=False)
    for word in [*WORDS, "Lovely.", "Asia/Tokyo"]:
        assert word in text, word
    assert exported["user"]["id"] == str(ana.pk)
    assert len(exported["bookings"]) == 3
    assert [entry["status"] for entry in exported["waitlist"]] == ["waiting"]
    assert [review["rating"] for review in exported["reviews"]] == [activity["review"].rating]
    assert [session["client"] for session in exported["sessions"]] == [BROWSER]
    assert len(exported["idempotency_keys"]) == 4


def client_with_key(api, user):
    """Return a client with an API key of a user."""
    row, key = create_key(owner=user, name="Till", at=now())
    client = type(api)()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    client.row, client.key = row, key
    return client


def test_the_export_contains_no_secrets(api, ana, activity):
    ana.refresh_from_db()
    client = client_with_key(api, ana)
    work()
    response = api.as_(ana).get("/me/export")
    assert response.json()["emailed_links"]
    [exported] = response.json()["api_keys"]
    assert (exported["name"], exported["prefix"]) == ("Till", client.row.prefix)
    text = response.content.decode()
    assert client.key not in text
    assert client.row.digest.hex() not in text
    assert ana.password not in text
    assert "token_hash" not in text


def test_the_export_contains_nothing_about_other_users(api, ana, activity):
    empty = UserFactory(name="Zed", email="zed@example.com")
    exported = api.as_(empty).get("/me/export").json()
    assert exported.pop("user")["name"] == "Zed"
    assert set(map(len, exported.values())) == {0}
    assert exported.keys() >= {
        "sessions",
        "bookings",
        "history",
        "waitlist",
        "reviews",
        "calendars",
    }


def test_a_provider_exports_their_calendars_and_services(api, helena, service):
    TimeOffFactory(calendar=service.calendar, reason="Dentist")
    exported = api.as_(helena).get("/me/export").json()
    assert [calendar["name"] for calendar in exported["calendars"]] == ["Chair"]
    assert [each["id"] for each in exported["services"]] == [str(service.pk)]
    assert [each["reason"] for each in exported["time_off"]] == ["Dentist"]


def test_the_number_of_queries_of_an_export_does_not_depend_on_the_number_of_bookings(
    api, ana, activity, django_assert_num_queries
):
    me = api.as_(ana)
    with django_assert_num_queries(20):
        me.get("/me/export")
    BookingFactory.create_batch(5, user=ana)
    with django_assert_num_queries(20):
        me.get("/me/export")


def test_a_large_export_is_sent_in_parts_and_has_the_same_content(
    api, ana, activity, service, monkeypatch
):
    # These two bookings start at the same time, but are in different batches.
    for seat in (1, 2):
        BookingFactory(user=ana, service=service, seat=seat, start_time=TUESDAY + timedelta(days=9))
    me = api.as_(ana)
    whole = me.get("/me/export").json()
    monkeypatch.setattr("bookings.privacy.BATCH", 2)
    response = me.get("/me/export")
    assert response.streaming
    assert response["Content-Type"] == "application/json"
    body = response.getvalue()
    assert int(response["Content-Length"]) == len(body)
    exported = json.loads(body)
    assert exported.keys() == whole.keys()
    for name, part in whole.items():
        if name == "history":
            # Only the events within a batch are in order.
            assert sorted(part, key=str) == sorted(exported[name], key=str)
        else:
            assert exported[name] == part, name
    ids = [booking["id"] for booking in exported["bookings"]]
    assert len(ids) == len({*ids}) == 5


def test_an_export_contains_the_review_of_a_deleted_booking(api, ana, activity):
    me = api.as_(ana)
    [before] = me.get("/me/export").json()["reviews"]
    Booking.objects.get(pk=before["booking_id"]).delete()
    [after] = me.get("/me/export").json()["reviews"]
    assert after == {**before, "booking_id": None, "updated_at": after["updated_at"]}


def test_a_booking_that_is_moved_during_an_export_is_exported_once(ana, monkeypatch):
    monkeypatch.setattr("bookings.privacy.BATCH", 1)
    bookings = BookingFactory.create_batch(4, user=ana)
    parts = privacy.export(user=ana)["bookings"]
    found = [next(parts)]
    last = bookings[-1]
    start, end = TUESDAY - timedelta(days=9), TUESDAY - timedelta(days=8)
    Booking.objects.filter(pk=last.pk).update(
        start_time=start, end_time=end, blocked=TimestamptzRange(start, end)
    )
    found += parts
    assert sorted(row["id"] for [row] in found) == sorted(each.pk for each in bookings)


def test_a_large_export_does_not_keep_all_bookings_in_memory(ana, monkeypatch):
    monkeypatch.setattr("bookings.privacy.BATCH", 10)
    BookingFactory.create_batch(40, user=ana)
    alive = []

    class Row(dict):
        def __init__(self, *args):
            super().__init__(*args)
            finalize(self, alive.remove, None)
            alive.append(None)

    represent = BookingSerializer.represent
    monkeypatch.setattr(BookingSerializer, "represent", lambda row: Row(represent(row)))
    most = 0
    for _part in dumps_in_parts(privacy.export(user=ana)):
        most = max(most, len(alive))
    assert 0 < most <= 30  # three of the four batches


def test_an_empty_object_is_written_in_parts_as_valid_json():
    assert b"".join(dumps_in_parts({})) == b"{}"


# --- delete -----------------------------------------------------------------------------------


def test_nothing_personal_is_stored_after_a_user_has_deleted_their_account(api, ana, activity):
    found = places(WORDS)
    assert {word for _, word in found} == {*WORDS}, "each word must be stored before the deletion"
    assert {
        "accounts_user",
        "accounts_session",
        "bookings_booking",
        "bookings_bookingevent",
        "bookings_staffnote",
        "bookings_attempt",
        "procrastinate_jobs",
        "bookit_keptresponse",
        "bookit_jobfailure",
        "django_admin_log",
    } <= {table for table, _ in found}
    response = delete(api.as_(ana))
    assert (response.status_code, response.content) == (204, b"")
    # Tiago still has to learn that Ana's bookings for him are cancelled.
    assert places(WORDS) == {("procrastinate_jobs", ATTENDEE_EMAIL)}
    work()
    assert places(WORDS) == set()


def test_every_column_of_text_is_searched_for_personal_data_or_listed(activity):
    """Let `activity` store one of the `WORDS` in a new column, or add it to `OTHER_COLUMNS`."""
    searched, others = set(), set()
    for model in apps.get_models():
        if not model.__module__.startswith(tuple(LAYERS)):
            continue
        for field in model._meta.concrete_fields:
            if isinstance(field, TEXT) and not field.choices:
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL bytea_output = 'escape'")
                    cursor.execute(f'SELECT "{field.column}"::text FROM "{model._meta.db_table}"')
                    text = "\n".join(value or "" for (value,) in cursor.fetchall())
                has_word = any(word in text for word in WORDS)
                (searched if has_word else others).add(f"{model._meta.label}.{field.column}")
    assert "bookings.Booking.notes" in searched
    assert others == OTHER_COLUMNS


# The columns that refer to users. Exporters and erasers know all of them, except `actor` and
# `author`: these say only who changed something, and keep the id of a deleted account.
REFERENCES = {
    *("accounts.Session.user", "accounts.EmailedLink.user", "accounts.ApiKey.user"),
    *("catalog.Calendar.provider", "catalog.Profile.user", "bookings.Booking.user"),
    *("bookings.BookingEvent.actor", "bookings.BookedCalendar.user", "bookings.WaitlistEntry.user"),
    *("bookings.Webhook.owner", "bookings.StaffNote.author", "reviews.Review.user"),
    "idempotency.KeptResponse.user",
}


def test_every_reference_to_a_user_is_known():
    """Add a new reference to an exporter and, if its rows must not be kept, to an eraser."""
    found = {
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.related_model is User and model.__module__.startswith(tuple(LAYERS))
    }
    assert found == REFERENCES


def test_kept_responses_to_others_are_erased_if_they_contain_data_of_a_deleted_user(api, service):
    admin = api.as_(AdminFactory(email="boss@example.com"))
    body = {"name": NAME, "email": EMAIL, "phone": PHONE}
    made = admin.post("/users", body, headers={"idempotency-key": "made"})
    start = (now() + timedelta(days=2)).isoformat()
    body = {"service_id": str(service.pk), "user_id": made.json()["id"], "start_time": start}
    booked = admin.post(
        "/bookings", {**body, "notes": NOTES}, headers={"idempotency-key": "booked"}
    )
    body = {"name": "Zé", "email": "ze@example.com"}
    other = admin.post("/users", body, headers={"idempotency-key": "other"})
    assert [each.status_code for each in (made, booked, other)] == [201] * 3
    words = [NAME, EMAIL, PHONE, NOTES]
    assert {word for table, word in places(words) if table == "bookit_keptresponse"} == {*words}
    assert admin.delete(f"/users/{made.json()['id']}").status_code == 204
    assert places(words) == set()
    assert KeptResponse.objects.get().key == "other"


def test_the_log_of_the_admin_site_does_not_keep_a_former_address_of_a_provider(api, helena):
    api.as_(helena).patch("/me/provider", {"biography": "Cuts hair."})
    site = Client()
    site.force_login(AdminFactory(email="boss@example.com"))
    page = f"/admin/catalog/profile/{helena.pk}/change/"
    form = {"user": str(helena.pk), "biography": "Cuts hair well.", "picture_url": ""}
    assert site.post(page, form).status_code == 302
    User.objects.filter(pk=helena.pk).update(email=NEW_EMAIL)
    assert places(["helena@example.com"]) == {("django_admin_log", "helena@example.com")}
    assert delete(api.as_(User.objects.get(pk=helena.pk))).status_code == 204
    assert places(["helena@example.com", NEW_EMAIL]) == set()


def test_personal_data_stays_without_the_eraser_of_bookings(api, ana, activity, monkeypatch):
    """Control for `test_nothing_personal_is_stored_after_a_user_has_deleted_their_account`."""
    monkeypatch.delitem(ERASERS, "bookings")
    delete(api.as_(ana))
    assert {
        "bookings_booking",
        "bookings_bookingevent",
        "bookings_attempt",
        "bookit_jobfailure",
    } <= {table for table, _ in places(WORDS)}


def test_the_cancellation_reason_of_a_deleted_booking_is_erased_with_the_account(
    api, ana, helena, service
):
    booking = BookingFactory(user=ana, service=service)
    change = {"booking_id": booking.pk, "at": now()}
    services.change_status(**change, status="cancelled", actor=helena, reason=REASON)
    assert ("bookings_bookingevent", REASON) in places([REASON])
    services.delete_booking(**change, actor=ana)
    # The email about the cancellation has not been sent yet.
    assert places([REASON]) == {("procrastinate_jobs", REASON)}
    delete(api.as_(ana))
    assert places([REASON]) == set()


def test_a_deleted_account_cannot_be_used_again(api, ana, activity):
    session = api.post("/auth/login", {"email": EMAIL, "password": PASSWORD}).json()
    key = client_with_key(api, ana)
    me = api.as_(ana)
    assert delete(me).status_code == 204
    problem(me.get("/me"), 401, "token_invalid")
    problem(key.get("/bookings"), 401, "token_invalid")
    response = api.post("/auth/refresh", {"refresh_token": session["refresh_token"]})
    problem(response, 401, "token_invalid")
    ana.refresh_from_db()
    for email in (EMAIL, ana.email):
        response = api.post("/auth/login", {"email": email, "password": PASSWORD})
        problem(response, 401, "invalid_credentials")
        work()
        mail.outbox.clear()
        assert api.post("/auth/password-reset", {"email": email}).status_code == 202
        work()
        assert mail.outbox == []
    assert not Session.objects.filter(user=ana).exists()
    assert not ApiKey.objects.filter(user=ana).exists()


def test_nobody_can_prevent_a_deletion_by_having_a_reserved_address(api, ana):
    """Ids are public, for example in reviews, so anybody can have an address that contains one."""
    UserFactory(email=f"{ana.pk}@deleted.invalid")
    assert delete(api.as_(ana)).status_code == 204


def test_a_deletion_is_refused_if_the_password_changes_during_the_check(api, ana, monkeypatch):
    check = accounts.check_own_password

    def check_and_change(**arguments):
        check(**arguments)
        other = User.objects.get(pk=ana.pk)
        other.set_password("another long password")
        other.save()

    monkeypatch.setattr(accounts, "check_own_password", check_and_change)
    with pytest.raises(accounts.Invalid):
        privacy.erase_own(user=ana, password=PASSWORD, client=sessions.Client(), at=now())
    ana.refresh_from_db()
    assert ana.deleted_at is None


@pytest.mark.parametrize("who", ["owner", "admin"])
def test_a_deletion_may_take_longer_than_other_requests(api, ana, monkeypatch, who):
    def erase_slowly(*, user, actor, at):
        run("SELECT pg_sleep(4)")

    monkeypatch.setitem(ERASERS, "slow", erase_slowly)
    monkeypatch.setattr(deadlines, "REQUEST_LIMIT", 3)
    if who == "owner":
        assert delete(api.as_(ana)).status_code == 204
    else:
        assert api.as_(AdminFactory()).delete(f"/users/{ana.pk}").status_code == 204


def test_a_deleted_account_holds_no_role(api, ana):
    role = create_role(name="Reception", permissions=[], actor=AdminFactory(), at=now())
    role.group.user_set.add(ana)
    assert api.as_(ana).get("/me/export").json()["user"]["roles"] == ["Reception"]
    assert delete(api.as_(ana)).status_code == 204
    assert not role.group.user_set.exists()


def test_a_constraint_prevents_a_deleted_account_from_signing_in(api, ana):
    delete(api.as_(ana))
    for change in ("is_active = true", "password = 'argon2$x'"):
        refused = pytest.raises(IntegrityError, match="user_deleted_cannot_sign_in")
        with refused, transaction.atomic():
            run(f"UPDATE accounts_user SET {change} WHERE deleted_at IS NOT NULL")


def test_the_email_address_of_a_deleted_account_can_be_registered_again(api, ana):
    delete(api.as_(ana))
    again = {"name": "Ana", "email": EMAIL, "password": PASSWORD}
    response = api.post("/auth/register", again)
    assert response.status_code == 201
    assert response.json()["id"] != str(ana.pk)


def test_future_bookings_are_cancelled_and_the_provider_and_the_attendee_are_notified(
    api, ana, helena, activity
):
    work()
    mail.outbox.clear()
    # Less than this notice is left, but a deletion cancels the booking nevertheless.
    activity["future"].service.cancellation_notice_minutes = 10_000
    activity["future"].service.save()
    delete(api.as_(ana))
    booking = Booking.objects.get(pk=activity["future"].pk)
    assert booking.status == "cancelled"
    event = booking.events.latest("id")
    assert (event.type, event.actor_id) == ("booking.cancelled", ana.pk)
    assert Booking.objects.get(pk=activity["done"].pk).status == "completed"
    work()
    to_attendee, to_provider = mail.outbox
    assert to_attendee.to == [ATTENDEE_EMAIL]
    assert to_provider.to == ["helena@example.com"]
    assert "The booking for A former user has been cancelled." in to_provider.body
    assert Delivery.objects.filter(event=event).exists()


def cancellations(to):
    """Send the waiting emails, and return those about cancellations to an address."""
    work()
    found = [each for each in mail.outbox if each.to == [to] and "METHOD:CANCEL" in file_of(each)]
    mail.outbox.clear()
    return found


def file_of(message):
    """Return the calendar file of an email, without the breaks of long lines."""
    [(_name, content, _form)] = message.attachments
    return content.replace("\r\n ", "")


@pytest.mark.parametrize("who", ["owner", "admin"])
def test_the_email_to_an_attendee_about_a_deleted_account_names_nobody(
    api, ana, helena, service, who
):
    booking = BookingFactory(
        user=ana,
        service=service,
        start_time=now() + timedelta(days=3),
        attendee_name=ATTENDEE,
        attendee_email=ATTENDEE_EMAIL,
        notes=NOTES,
    )
    if who == "owner":
        assert delete(api.as_(ana)).status_code == 204
    else:
        assert api.as_(AdminFactory()).delete(f"/users/{ana.pk}").status_code == 204
    [message] = cancellations(ATTENDEE_EMAIL)
    # The language of the booking was that of its user.
    assert message.subject.startswith(f"Cancelada: {service.title}, ")
    assert "A sua reserva foi cancelada." in message.body
    file = file_of(message)
    assert f"UID:{booking.pk}" in file
    assert f"mailto:{ATTENDEE_EMAIL}" in file
    for text in (message.subject, message.body, message.alternatives[0].content, file):
        for word in {*WORDS} - {ATTENDEE_EMAIL}:
            assert word not in text
    assert cancellations(ATTENDEE_EMAIL) == []


@pytest.mark.parametrize("address", ["", EMAIL, EMAIL.upper()])
def test_a_deleted_user_gets_no_email_about_their_own_bookings(api, ana, service, address):
    for days in (3, 4):
        start = now() + timedelta(days=days)
        booking = BookingFactory(
            user=ana, service=service, start_time=start, attendee_email=address
        )
    # An email that was composed before is deleted, too.
    services.delete_booking(booking_id=booking.pk, actor=ana, at=now())
    assert delete(api.as_(ana)).status_code == 204
    work()
    assert [message.to for message in mail.outbox] == [["helena@example.com"]] * 2


def test_an_attendee_learns_of_cancellations_that_came_right_before_the_deletion_of_the_account(
    api, ana, helena, service
):
    start = now() + timedelta(days=3)
    fields = {"user": ana, "service": service, "attendee_email": ATTENDEE_EMAIL}
    first = BookingFactory(start_time=start, **fields)
    services.cancel_booking(booking_id=first.pk, actor=ana, at=now())
    assert len(cancellations(ATTENDEE_EMAIL)) == 1
    second = BookingFactory(start_time=start, **fields)
    services.cancel_booking(booking_id=second.pk, actor=ana, at=now())
    third = BookingFactory(start_time=start, **fields)
    services.delete_booking(booking_id=third.pk, actor=ana, at=now())
    delete(api.as_(ana))
    told = cancellations(ATTENDEE_EMAIL)
    uids = {
        str(each.pk)
        for each in (second, third)
        for message in told
        if str(each.pk) in file_of(message)
    }
    assert len(told) == len(uids) == 2


def test_waiting_emails_to_others_are_kept_but_failed_emails_are_deleted(api, ana, activity):
    composed = ProcrastinateJob.objects.filter(task_name="bookings.send_composed_mail")
    run("UPDATE procrastinate_jobs SET status = 'todo' WHERE task_name ~ 'composed'")
    assert {job.args["mail"]["audience"] for job in composed} == {"attendee", "provider"}
    delete(api.as_(ana))
    assert {job.args["mail"]["to"] for job in composed.all()} == {
        ATTENDEE_EMAIL,
        "helena@example.com",
    }
    run("UPDATE procrastinate_jobs SET status = 'failed' WHERE task_name ~ 'composed'")
    work()
    assert not composed.all().exists()


def test_a_deleted_user_leaves_the_waitlist(api, ana, activity):
    delete(api.as_(ana))
    assert WaitlistEntry.objects.get().status == "left"


def test_reviews_are_kept_without_a_name(api, ana, activity):
    url = f"/reviews/{activity['review'].pk}"
    assert api.get(url).json()["author_name"] == NAME
    delete(api.as_(ana))
    review = api.get(url).json()
    assert (review["author_name"], review["comment"]) == ("", "Lovely.")
    assert review["rating"] == activity["review"].rating


def test_history_keeps_everything_except_its_reasons(api, ana, helena, activity):
    url = f"/bookings/{activity['cancelled'].pk}/history"
    before = api.as_(helena).get(url).json()
    delete(api.as_(ana))
    after = api.as_(helena).get(url).json()
    for event in before["results"]:
        event["data"].pop("reason", None)
    assert after == before


@pytest.mark.parametrize(
    "change",
    [
        "data = data - 'status'",
        'data = data || \'{"reason": "other"}\'',
        "data = data - 'reason', type = 'booking.held'",
        "data = data - 'reason', actor_id = NULL",
    ],
)
def test_the_database_allows_only_the_removal_of_reasons_from_history(activity, change):
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        run(f"UPDATE bookings_bookingevent SET {change} WHERE data ? 'reason'")
    run("UPDATE bookings_bookingevent SET data = data - 'reason' WHERE data ? 'reason'")


def test_a_deleted_provider_is_removed_from_the_catalog(api, helena, ana):
    named = CalendarFactory(provider=helena, name="Helena's chair")
    service = ServiceFactory(calendar=named)
    TimeOffFactory(calendar=named, reason="Helena at the dentist")
    booking = BookingFactory(service=service, user=ana)
    delete(api.as_(helena))
    shown = api.get(f"/services/{service.pk}").json()
    assert (shown["is_active"], shown["provider_id"]) == (False, None)
    assert api.get(f"/calendars/{named.pk}").json()["name"] == "Calendar"
    assert Booking.objects.get(pk=booking.pk).status == booking.status
    assert places(["Helena"]) == set()


def test_the_log_of_the_admin_site_keeps_no_calendar_name_that_contains_the_name_of_its_provider(
    api, helena
):
    site = Client()
    site.force_login(AdminFactory(email="boss@example.com"))

    counts = ("TOTAL_FORMS", "INITIAL_FORMS")

    def post(path, **fields):
        fields |= {f"{rows}-{count}": 0 for rows in ("hours", "time_off") for count in counts}
        assert site.post(f"/admin/catalog/calendar/{path}/", fields).status_code == 302

    room, renamed = CalendarFactory.create_batch(2, provider=helena)
    other, deleted = CalendarFactory.create_batch(2)
    form = {"timezone": "UTC", "provider": str(helena.pk)}
    post(f"{room.pk}/change", name="Room 2 of HELENA", **form)
    post(f"{renamed.pk}/change", name="Helena, first floor", **form)
    post(f"{renamed.pk}/change", name="First floor", **form)
    post(f"{other.pk}/change", name="Saint Helena", timezone="UTC")
    post(f"{deleted.pk}/change", name="Helena", **form)
    post(f"{deleted.pk}/delete", post="yes")
    delete(api.as_(helena))
    logged = LogEntry.objects.order_by("id").values_list("object_repr", flat=True)
    assert [*logged] == ["", "", "First floor", "Saint Helena", "", ""]


def test_the_services_of_a_deleted_provider_are_deactivated_after_all_calendars_are_locked(
    api, helena
):
    """Categories are locked last, as the order of locks requires.

    A trigger locks them when services change.
    """
    for category in ("Barber", "Massage"):
        service = ServiceFactory(calendar=CalendarFactory(provider=helena), category=category)
        TimeOffFactory(calendar=service.calendar, reason="Helena at the dentist")
    CalendarFactory(provider=helena, name="Helena's calendar without services")
    calendars = {pk.hex for pk in Calendar.objects.values_list("pk", flat=True)}
    with CaptureQueriesContext(connection) as captured:
        delete(api.as_(helena))
    texts = [each["sql"] for each in captured]
    [change] = [n for n, text in enumerate(texts) if text.startswith('UPDATE "catalog_service"')]
    locks = [text for text in texts[:change] if text.endswith("FOR UPDATE")]
    locked = {pk for pk in calendars if any(f"calendar_take_turn('{pk}'" in lock for lock in locks)}
    assert len(locked) == 3
    assert locked == calendars


def test_a_wrong_password_deletes_nothing(api, ana, settings):
    me = api.as_(ana)
    for password in ("wrong", PASSWORD.upper()):
        problem(delete(me, password), 400, "validation_error", "password")
    problem(me.delete("/me"), 400, "validation_error", "password")
    assert me.get("/me").json()["name"] == NAME
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "password": "1/hour"}
    delete(me, "wrong")
    problem(delete(me), 429, "throttled")


# --- admins -----------------------------------------------------------------------------------


def test_an_account_that_an_admin_deletes_is_erased_and_no_longer_found(api, ana, activity):
    admin = api.as_(AdminFactory())
    response = admin.delete(f"/users/{ana.pk}")
    assert (response.status_code, response.content) == (204, b"")
    assert places(WORDS) == {("procrastinate_jobs", ATTENDEE_EMAIL)}
    work()
    assert places(WORDS) == set()
    for method in (admin.get, admin.delete):
        problem(method(f"/users/{ana.pk}"), 404, "not_found")
    problem(admin.patch(f"/users/{ana.pk}", {"is_active": True}), 404, "not_found")
    assert str(ana.pk) not in admin.get("/users?limit=100").content.decode()


def test_an_admin_does_not_see_deleted_accounts_in_the_admin_site(api, ana, client):
    delete(api.as_(ana))
    client.force_login(AdminFactory())
    assert "deleted.invalid" not in client.get("/admin/accounts/user/").content.decode()
    assert client.get(f"/admin/accounts/user/{ana.pk}/change/").status_code in (302, 404)


def test_the_forms_of_the_admin_site_neither_offer_nor_accept_a_deleted_account(api, ana, client):
    """The form of a calendar contains users as options, for browsers without scripts."""
    delete(api.as_(ana))
    client.force_login(AdminFactory(email="boss@example.com"))
    path = "/admin/catalog/calendar/add/"
    shown = client.get(path).content.decode()
    assert "boss@example.com" in shown
    assert "deleted.invalid" not in shown
    form = {"name": "Chair", "timezone": "UTC", "provider": str(ana.pk)}
    assert client.post(path, form).context["adminform"].form.errors.keys() == {"provider"}


def test_the_last_admin_cannot_be_deleted(api):
    admin = AdminFactory()
    AdminFactory(is_active=False)
    me = api.as_(admin)
    problem(delete(me), 409, "last_admin")
    problem(me.delete(f"/users/{admin.pk}"), 409, "last_admin")
    assert me.get("/me").status_code == 200


def test_one_of_two_admins_can_be_deleted(api):
    one, other = AdminFactory(), AdminFactory()
    assert api.as_(one).delete(f"/users/{other.pk}").status_code == 204
    problem(delete(api.as_(one)), 409, "last_admin")


def test_one_admin_stays_if_two_admins_delete_each_other_at_once(transactional_db, api):
    one, other = AdminFactory(), AdminFactory()
    clients = {one: api.as_(one), other: api.as_(other)}
    outcomes = behind_a_rival(
        [
            lambda: clients[one].delete(f"/users/{other.pk}"),
            lambda: clients[other].delete(f"/users/{one.pk}"),
        ],
        rival=lambda: list(User.objects.select_for_update()),
    )
    statuses = Counter(outcome.value.status_code for outcome in outcomes)
    assert statuses == {204: 1, 409: 1}
    assert User.objects.all().active_admins().count() == 1


@pytest.mark.one_server("on a cluster, changes of accounts wait for each other")
@pytest.mark.parametrize("kind", [UserFactory, ProviderFactory])
def test_admins_can_sign_in_while_a_long_deletion_runs(transactional_db, api, monkeypatch, kind):
    user, admin = kind(), AdminFactory()
    seen, usual = [], privacy._erase_traces

    def sign_in_and_erase(user):
        sign_in = partial(api.post, "/auth/login", {"email": admin.email, "password": PASSWORD})
        seen.extend(at_once([sign_in]))
        usual(user)

    monkeypatch.setattr(privacy, "_erase_traces", sign_in_and_erase)
    assert delete(api.as_(user)).status_code == 204
    assert [each.value.status_code for each in seen] == [200]


def test_no_booking_survives_a_concurrent_deletion(transactional_db, api, service):
    """The deletion misses bookings that are made meanwhile. A job cancels them a minute later."""
    user = UserFactory()
    me = api.as_(user)
    calls = [
        lambda days=days: me.post(
            "/bookings",
            {
                "service_id": str(service.pk),
                "start_time": (now() + timedelta(days=days)).isoformat(),
            },
        )
        for days in range(2, 8)
    ]
    outcomes = at_once([*calls, lambda: delete(me)])
    assert [outcome.error for outcome in outcomes] == [None] * 7
    assert outcomes[-1].value.status_code == 204
    jobs = ProcrastinateJob.objects.filter(task_name="accounts.erase_again").order_by("id")
    delays = [round((job.scheduled_at - now()) / timedelta(minutes=1)) for job in jobs]
    assert delays == [1, 2 * 24 * 60]
    work()
    assert not Booking.objects.filter(user=user, unfinished=True).exists()


@pytest.mark.one_server("on a cluster, a booking may wait for changes of its user's account")
def test_a_booking_that_a_deletion_misses_is_cancelled_by_a_job(
    transactional_db, api, service, monkeypatch
):
    me, usual = api.as_(UserFactory()), privacy._erase_traces
    new = {
        "service_id": str(service.pk),
        "start_time": (now() + timedelta(days=2)).isoformat(),
    }

    def book_and_erase(user):
        monkeypatch.setattr(privacy, "_erase_traces", usual)
        [booked] = at_once([partial(me.post, "/bookings", new)])
        assert booked.value.status_code == 201
        usual(user)

    monkeypatch.setattr(privacy, "_erase_traces", book_and_erase)
    assert delete(me).status_code == 204
    assert Booking.objects.get().status == "pending"
    work()
    assert Booking.objects.get().status == "cancelled"


def test_a_change_of_the_profile_that_outlasts_the_deletion_is_erased(api, ana):
    me = api.as_(ana)
    slow = User.objects.get(pk=ana.pk)
    assert delete(me).status_code == 204
    changes = {"name": NAME, "phone": PHONE, "language": "pt", "metadata": {"crm_id": "4711"}}
    accounts.update_profile(user=slow, changes=changes, client=sessions.Client())
    assert User.objects.get(pk=ana.pk).name == NAME
    work()
    gone = User.objects.get(pk=ana.pk)
    assert (gone.name, gone.phone, gone.language, gone.metadata) == ("", "", "en", {})
