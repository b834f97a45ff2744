"""Deletions and the follow-up of events work with any number of rows.

No statement has too many parameters.
"""

import ast
import json
import tracemalloc
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import UserFactory
from bookings import followup
from bookings.tests.factories import BookingFactory, DeliveryFactory, WebhookFactory
from bookings.tests.jobs import follow_events_up
from bookings.webhooks.models import Attempt, Delivery
from bookit import deadlines
from bookit.database import batches
from bookit.runtime.startup import BASE_DIR
from bookit.tests.crowd import at_once
from bookit.tests.test_architecture import CODE

# One more than the number of parameters that a statement can have.
MANY = 65_536

# For each table, the statements that fill it with old rows.
FILL = {
    "token_blacklist_outstandingtoken": """
        INSERT INTO token_blacklist_outstandingtoken (user_id, jti, token, created_at, expires_at)
        SELECT '{user}', n::text, '', now(), now() - interval '1 day' - n * interval '1 ms'
        FROM generate_series(1, {many}) AS n;
        INSERT INTO token_blacklist_blacklistedtoken (token_id, blacklisted_at)
        SELECT id, now() FROM token_blacklist_outstandingtoken WHERE id % 10 = 0
    """,
    "accounts_session": """
        INSERT INTO accounts_session (id, user_id, client, created_at, last_used_at, expires_at)
        SELECT gen_random_uuid(), '{user}', '', now(), now(), now() - interval '1 day'
        FROM generate_series(1, {many})
    """,
    "django_session": """
        INSERT INTO django_session (session_key, session_data, expire_date)
        SELECT n::text, '', now() - interval '1 day' FROM generate_series(1, {many}) AS n
    """,
    "bookings_delivery": """
        INSERT INTO bookings_delivery (id, webhook_id, type, status, created_at)
        SELECT gen_random_uuid(), '{webhook}', 'test', 'delivered', now() - interval '31 days'
        FROM generate_series(1, {many});
        INSERT INTO bookings_attempt (delivery_id, at, duration_ms, error, response)
        SELECT id, now(), 1, '', '' FROM bookings_delivery
    """,
    "bookit_keptresponse": """
        INSERT INTO bookit_keptresponse
            (user_id, owner, key, fingerprint, status, location, body, created_at)
        SELECT '{user}', '{user}', n::text, '', 204, '', '', now() - interval '1 day'
        FROM generate_series(1, {many}) AS n
    """,
    "procrastinate_jobs": """
        INSERT INTO procrastinate_jobs (queue_name, task_name, status)
        SELECT 'default', 'nothing', 'failed' FROM generate_series(1, {many});
        UPDATE procrastinate_events SET at = at - interval '31 days'
    """,
}


def fill(table, many):
    run(FILL[table].format(user=UserFactory().pk, webhook=WebhookFactory().pk, many=many))


def run(text):
    deadlines.lift_time_limit()
    with connection.cursor() as cursor:
        cursor.execute(text)
    deadlines.restore_time_limit()


def count(table):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]


# `prune_jobs` deletes jobs, and `delete_in_batches` the rows of the other tables. Each of the two
# gets one table with more rows than a statement can have parameters.
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("table", "many"),
    [
        ("token_blacklist_outstandingtoken", MANY),
        ("accounts_session", 5_000),
        ("django_session", 5_000),
        ("bookings_delivery", 5_000),
        ("bookit_keptresponse", 5_000),
        ("procrastinate_jobs", MANY),
    ],
)
def test_any_number_of_old_rows_is_deleted_in_constant_memory(table, many):
    fill(table, many)
    tracemalloc.start()
    try:
        call_command("prune")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count(table) == 0
    # The largest peak is about 0.5 MiB. If all rows were one batch, each would be above 1.7 MiB.
    assert peak < 2**20, f"{peak / 2**20:.1f} MiB"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("table", FILL)
def test_each_batch_is_a_transaction_of_its_own(table, monkeypatch):
    monkeypatch.setattr("bookit.database.batches.BATCH", 3)
    monkeypatch.setattr("bookit.jobs.queues.BATCH", 3)
    run("DELETE FROM procrastinate_jobs")
    fill(table, many=8)
    with CaptureQueriesContext(connection) as captured:
        call_command("prune")
    assert count(table) == 0
    # For each batch, the number and the text of the last statement that began or ended a
    # transaction.
    found, last = [], None
    for number, query in enumerate(captured):
        text = query["sql"].strip()
        if text in ("BEGIN", "COMMIT"):
            last = number, text
        elif text.replace('"', "").startswith(f"DELETE FROM {table} "):
            found.append(last)
    assert len(found) == 3
    if table == "procrastinate_jobs":  # Each batch is one statement, outside a transaction.
        assert {text for _, text in found} == {"COMMIT"}
    else:
        assert {text for _, text in found} == {"BEGIN"}
        assert len({*found}) == 3


@pytest.mark.django_db(transaction=True)
def test_a_locked_row_is_skipped_until_the_next_run(monkeypatch):
    monkeypatch.setattr(batches, "BATCH", 2)
    rows = sorted(DeliveryFactory.create_batch(5), key=lambda each: each.pk)
    everything = Delivery.objects.all()
    with transaction.atomic():
        Delivery.objects.select_for_update().get(pk=rows[2].pk)
        [outcome] = at_once(
            [lambda: batches.delete_in_batches(Delivery.objects.all(), by="created_at")]
        )
    assert (outcome.value, outcome.error) == (4, None)
    assert [each.pk for each in everything] == [rows[2].pk]
    assert batches.delete_in_batches(everything, by="created_at") == 1
    assert not Attempt.objects.exists()


def write_events(booking, many):
    """Write events in one statement. Delete the job that a trigger enqueues; return its events."""
    run(
        "INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, at, data)"
        f" SELECT '{booking.calendar_id}', '{booking.pk}', 'booking.completed', now(), '{{}}'"
        f" FROM generate_series(1, {many})"
    )
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs RETURNING args->'event_ids'")
        return [UUID(each) for each in json.loads(cursor.fetchone()[0])]


def parts():
    """Return the number of events in each job."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT jsonb_array_length(args->'event_ids') FROM procrastinate_jobs"
            " WHERE task_name = 'bookings.follow_up' ORDER BY id"
        )
        return [length for (length,) in cursor.fetchall()]


@pytest.mark.django_db
def test_more_events_than_a_statement_has_parameters_are_followed_up():
    ids = write_events(BookingFactory(), MANY)
    assert len(ids) == MANY
    follow_events_up(ids, at=timezone.now())
    assert (max(parts()), sum(parts())) == (followup.MAX_EVENTS, MANY)


@pytest.mark.django_db
def test_webhooks_get_the_events_of_one_statement_in_order(monkeypatch):
    """All deliveries are written before the parts become jobs, which can run in any order."""
    monkeypatch.setattr(followup, "MAX_EVENTS", 3)
    WebhookFactory(events=["booking.completed"])
    ids = write_events(BookingFactory(), 8)
    follow_events_up(ids, at=timezone.now())
    assert parts() == [3, 3, 2]
    assert [each.event_id for each in Delivery.objects.order_by("event")] == ids


# Each place where the ORM deletes rows or filters by a list of values, and why that is safe there.
SAFE_PLACES = {
    "accounts/keys/services.py: ApiKey.objects.filter(user=owner).delete": "at most 20 rows",
    "accounts/keys/services.py: ApiKey.objects.get(pk=key_id, user=owner).delete": "one row",
    "accounts/roles/services.py: group__in=changed": (
        "the user's roles, and at most 100 names in a body"
    ),
    "accounts/roles/services.py: name__in=held | wanted": (
        "the user's roles, and at most 100 names in a body"
    ),
    "accounts/roles/services.py: role.group.delete": "one row, and its permissions and holders",
    "accounts/links/services.py: EmailedLink.objects.filter(pk=link.pk).delete": "one row",
    "accounts/links/services.py: purpose__in=[kind.name for kind in kinds]": "two kinds",
    "accounts/privacy/services.py: Session.objects.filter(user=user).delete": (
        "the ORM loads no rows"
    ),
    "accounts/privacy/services.py: user.emailed_links.all().delete": "the ORM loads no rows",
    "catalog/providers/admin.py: user__in=people.values('pk')": "a subquery",
    "catalog/privacy.py: calendar__in=own": "a queryset: it becomes a subquery",
    "catalog/privacy.py: object_id__in=ids": "the calendars of one provider",
    "bookit/adminsite/changelist.py: pk__in=page.object_list.values('pk')": "a subquery",
    "bookit/adminsite/pages.py: pk__in=ids": "selected rows: a form has at most 1,000 fields",
    "bookit/database/prepared.py: pk__in=ids": "a subquery",
    "bookit/api/expand.py: pk__in=ids": "a page",
    "bookings/viewsets.py: pk__in=booking_ids": "a page",
    "bookings/webhooks/deliveries.py: pk__in=[each.pk for each in locked]": "at most GIVE_UP_BATCH",
    "bookings/webhooks/deliveries.py: pk__in=ids": "at most GIVE_UP_BATCH",
    "bookings/webhooks/deliveries.py: pk__in=named": "the bookings of a batch of messages",
    "bookings/webhooks/deliveries.py: pk__in=there": "a batch of messages",
    "bookings/exports/daysheets.py: status__in=Booking.BOOKED": "four statuses",
    "bookings/desk/filters.py: pk__in=missing": "the ids in a URL",
    "bookings/feeds/services.py: pk__in=owner_ids": "a calendar and a user",
    "bookings/feeds/services.py: status__in=Booking.BOOKED": "four statuses",
    "bookings/followup.py: calendar__in=calendar_ids": "a statement's events are on one calendar",
    "bookings/followup.py: pk__in=event_ids": "MAX_EVENTS at a time",
    "bookings/webhooks/models.py: owner__in=User.objects.all().active_admins()": "a subquery",
    "bookings/webhooks/home.py: pk__in=Webhook.objects.delivering()": "a subquery",
    "bookings/payloads.py: pk__in={event.booking_id for event in events}": "a page, or a batch",
    "bookings/slots/admin.py: calendar__in=calendars": "the calendars of at most 501 slots",
    "bookings/slots/admin.py: slot__in=rows": "at most 501 slots",
    "bookings/slots/admin.py: status__in=Booking.EXPECTED": "two statuses",
    "bookings/slots/serializers.py: pk__in=[slot.pk for slot in slots]": "the slots of one request",
    "bookings/phone/services.py: user__in=users": "two users",
    "bookings/privacy.py: StaffNote.objects.filter(calendar=calendar_id, booking__in=ids).delete": (
        "the ORM loads no rows"
    ),
    "bookings/privacy.py: booking__in=ids": "BATCH at a time",
    "bookings/privacy.py: pk__in=ids": "BATCH at a time",
    "bookings/services.py: status__in=Booking.UNFINISHED": "three statuses",
    "bookings/affected.py: status__in=Booking.EXPECTED": "two statuses",
    "bookings/phone/services.py: status__in=Booking.EXPECTED": "two statuses",
    "bookings/services.py: booking.delete": "one row",
    "bookings/waitlist/services.py: pk__in=slot_ids": "slots of MAX_EVENTS events",
    "bookings/waitlist/services.py: user__in=inactive": "a subquery",
    "bookings/waitlist/services.py: calendar__in=calendar_ids": "calendars of MAX_EVENTS events",
    "bookings/waitlist/services.py: slot__in=slot_ids": "slots of MAX_EVENTS events",
    "bookings/webhooks/services.py: Webhook.objects.filter(pk=webhook_id).delete": (
        "one row, whose deliveries are already deleted"
    ),
    "bookit/management/commands/serve.py: email__in=emails": "the demo accounts",
    "bookings/desk/page.py: pk__in=ids": "the API keys of a page of events",
    "bookings/desk/page.py: subject__in=subjects": "the attendee and the provider",
    "bookings/booked.py: BookedCalendar.objects.filter(user=user_id).delete": (
        "the ORM loads no rows"
    ),
    "bookings/desk/admin.py: pk__in=pks": "the bookings that a page names",
    "accounts/subjects.py: pk__in=[each for each in ids if each]": "the jobs of a page",
    "bookings/subjects.py: pk__in=[each for each in firsts if each]": "the jobs of a page",
    "bookings/waitlist/admin.py: pk__in=[each for each in ids if each]": "the jobs of a page",
    "bookings/diary/reading.py: calendar__in=ids": "MAX_CALENDARS",
    "bookings/diary/reading.py: calendar__in=spans": "MAX_CALENDARS",
    "bookings/diary/views.py: calendar__in=shown": "MAX_CALENDARS",
    "bookings/diary/views.py: pk__in=asked['calendar']": "MAX_CALENDARS",
    "bookings/diary/views.py: pk__in=known": "MAX_CALENDARS",
    "bookings/home.py: status__in=','.join(Booking.BOOKED)": "a link, not a statement",
    "bookings/home.py: status__in=','.join(Booking.EXPECTED)": "a link, not a statement",
    "bookings/home.py: status__in=','.join(EARNING)": "a link, not a statement",
    "bookings/home.py: status__in=Booking.EXPECTED": "two statuses",
    "bookings/slots/home.py: status__in=TAKING": "a link, not a statement",
    "bookings/imports/lines.py: email__in=emails": "CHUNK lines of a file",
    "bookings/imports/lines.py: title__in=titles": "CHUNK lines of a file",
    "bookings/subjects.py: pk__in=ids": "the jobs of a page",
    "bookit/adminsite/search.py: pk__in=ids": "at most MAX_COUNTED rows",
    "bookings/models.py: status__in=statuses": "the known statuses",
    "catalog/admin.py: provider__in=people.values('pk')": "a subquery",
    "catalog/admin.py: calendar__in=named.values('pk')": "a subquery",
    "catalog/admin.py: timezone__in=zones": "the known zones",
    "bookings/desk/search.py: user__in=people.values('pk')": "a subquery",
    "bookings/desk/search.py: service__in=titled.values('pk')": "a subquery",
    "bookings/desk/search.py: calendar__in=named.values('pk')": "a subquery",
    "catalog/providers/filters.py: pk__in=profiles.values('user')": "a subquery",
    "bookit/ratelimits/redis.py: self._storage.get_connection().delete": "one count, in Redis",
    "catalog/models.py: own._raw_delete": "one row",
    "catalog/privacy.py: Profile.objects.filter(user=user).delete": "one row",
    "catalog/services.py: calendar.hours.all().delete": "the opening hours of a week",
    "catalog/services.py: calendar.time_off.get(pk=time_off_id).delete": "one row",
    "bookit/database/references.py: row.delete": "one row, and the parts of a calendar",
    "bookit/tools/benchmark/fill.py: service__in=[key('service', number) for number in services]": (
        "the services that the clients of the benchmark book"
    ),
    "bookit/tools/benchmark/jobs.py: User.objects.filter(pk=webhook.owner_id).delete": "one row",
    "bookit/tools/demo/fill.py: email__in=town.emails": "the demo accounts",
    "reviews/admin.py: service__in=services_found.values('pk')": "a subquery",
    "reviews/admin.py: user__in=authors_found.values('pk')": "a subquery",
    "reviews/payloads.py: pk__in=ids.values()": "a page, or a batch",
    "reviews/privacy.py: pk__in=ids": "BATCH at a time",
    "reviews/services.py: review.delete": "one row",
}


# The names of lists of constant length.
CONSTANTS = {"REPORTED_TYPES"}


def mass_operations(path):
    """Yield each `.delete()` of a file, and each `__in=`, unless its list is written out there.

    The lists in `CONSTANTS` are left out, too.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("delete", "_raw_delete"):
            yield ast.unparse(node.func)
        for keyword in node.keywords:
            if (keyword.arg or "").endswith("__in"):
                value = ast.unparse(keyword.value)
                if not (isinstance(keyword.value, ast.List) or value in CONSTANTS):
                    yield f"{keyword.arg}={value}"


def test_every_delete_and_every_list_of_values_is_listed_as_safe():
    """Each value is a parameter, and a statement can have 65,535. `.delete()` may load all rows.

    Use `delete_in_batches`, or add the place to `SAFE_PLACES` with the reason why it is safe.
    """
    found = {
        f"{path.relative_to(BASE_DIR)}: {each}" for path in CODE for each in mass_operations(path)
    }
    assert sorted(found) == sorted(SAFE_PLACES)


def test_mass_operations_finds_deletes_and_lists_of_values(tmp_path):
    """Control for the test above: `mass_operations` finds deletes and lists of values."""
    code = tmp_path / "code.py"
    code.write_text(
        "Row.objects.filter(old=True).delete()\n"
        "Row.objects.filter(pk__in=ids, status__in=['new', 'old'], type__in=REPORTED_TYPES)\n"
        "Row.objects.exclude(pk__in=[row.pk for row in rows])\n"
    )
    assert [*mass_operations(code)] == [
        "Row.objects.filter(old=True).delete",
        "pk__in=ids",
        "pk__in=[row.pk for row in rows]",
    ]
