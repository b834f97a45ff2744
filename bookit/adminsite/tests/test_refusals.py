"""A change that a rule or somebody else's change forbids is not made, and a message says why.

Invalid URLs and cookies are refused too.
"""

import re
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from bookings import services
from bookings.models import Booking, Slot
from bookings.tests.factories import BookingFactory, SlotFactory
from bookit import deadlines
from bookit.adminsite import pages
from bookit.adminsite.tests.addresses import url_of
from bookit.tests.expect import page
from catalog.admin import CalendarAdmin, ServiceAdmin
from catalog.models import Calendar, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

UNKNOWN_ID = "01a00000-0000-7000-8000-000000000000"


def form_of(service, **changes):
    """Return the fields of a service's page, without the hidden ones that browsers also send."""
    return {
        "title": service.title,
        "calendar": service.calendar_id,
        "price": service.price,
        "currency": service.currency,
        "duration_minutes": service.duration_minutes,
        "capacity": service.capacity,
        "mode": service.mode,
        "is_active": "on",
        "requires_confirmation": "on",
        "buffer_before_minutes": 0,
        "buffer_after_minutes": 0,
        "min_notice_minutes": 0,
        "cancellation_notice_minutes": 0,
        **changes,
    }


@pytest.fixture
def before_saving(monkeypatch):
    """Return a function that sets what happens between reading and saving a service."""

    def set_up(run):
        save_form = ServiceAdmin.save_form

        def late(self, request, form, change):
            run()
            return save_form(self, request, form, change)

        monkeypatch.setattr(ServiceAdmin, "save_form", late)

    return set_up


# --- forms ------------------------------------------------------------------------------------


def test_a_row_that_was_deleted_in_the_meantime_is_not_stored_again(site, before_saving):
    service = ServiceFactory()
    before_saving(Service.objects.all().delete)
    path = url_of(Service, "change", service.pk)
    response = site.post(path, form_of(service, title="New"))
    assert response.status_code == 200
    assert "It no longer exists, because somebody has deleted it" in response.content.decode()
    assert 'value="New"' in response.content.decode()
    assert not Service.objects.filter(title="New").exists()


def test_a_page_saves_only_the_fields_that_were_changed_on_it(site, before_saving):
    """A review arrives and the price changes after the row was read. Saving keeps both."""
    service = ServiceFactory()
    before_saving(lambda: Service.objects.update(rating_sum=5, rating_count=1, price=Decimal(30)))
    path = url_of(Service, "change", service.pk)
    assert site.post(path, form_of(service, title="New")).status_code == 302
    service.refresh_from_db()
    assert (service.title, service.price) == ("New", Decimal(30))
    assert (service.rating_sum, service.rating_count) == (5, 1)


@pytest.mark.django_db(transaction=True)
def test_a_refusal_by_the_database_is_shown_on_the_form(site, before_saving):
    """Somebody deletes the chosen calendar before the service is saved."""
    calendar = CalendarFactory()
    service = ServiceFactory.build(calendar=calendar)
    before_saving(Calendar.objects.all().delete)
    response = site.post(url_of(Service, "add"), form_of(service))
    assert response.status_code == 200
    assert "Please correct the error below" in response.content.decode()
    assert not Service.objects.exists()


@pytest.mark.parametrize("value", ["abc", "\0", UNKNOWN_ID, "9" * 400])
def test_an_unknown_or_invalid_id_in_an_autocomplete_field_causes_no_error_page(site, value):
    service = ServiceFactory()
    response = site.post(url_of(Service, "add"), form_of(service, calendar=value))
    assert response.status_code == 200
    assert site.get(url_of(Service, "add"), {"calendar": value}).status_code == 200


def test_a_field_that_suggests_services_does_not_search_their_descriptions(site):
    ServiceFactory(title="Yin Yoga", description="Slow.")
    ServiceFactory(title="Bootcamp", description="Trying hard.")  # "yin" is in this word.
    chosen = {"app_label": "bookings", "model_name": "slot", "field_name": "service"}
    found = site.get("/admin/autocomplete/", {**chosen, "term": "yin"}).json()["results"]
    assert [each["text"] for each in found] == ["Yin Yoga"]


def test_the_page_of_a_deleted_row_redirects_with_a_message(site):
    service = ServiceFactory()
    form = form_of(service)
    service.delete()
    for kind in ("change", "delete", "history"):
        path = url_of(Service, kind, service.pk)
        response = site.get(path, follow=True)
        assert "Perhaps it was deleted?" in response.content.decode()
    response = site.post(url_of(Service, "change", service.pk), form, follow=True)
    assert "Perhaps it was deleted?" in response.content.decode()


# --- actions ----------------------------------------------------------------------------------


def choose(site, model, action, *ids, **more):
    body = {"action": action, "_selected_action": ids, **more}
    return site.post(url_of(model, "changelist"), body, follow=True).content.decode()


@pytest.mark.parametrize("gone", ["abc", "", "\0", "9" * 400, UNKNOWN_ID])
def test_an_action_applies_to_existing_rows_and_counts_missing_rows(site, gone):
    booking = BookingFactory()
    text = choose(site, Booking, "mark_confirmed", booking.pk, gone)
    assert "1 booking confirmed." in text
    assert "1 of the 2 selected rows are no longer in the list." in text


def test_an_action_on_a_deleted_row_changes_nothing_and_says_so(site):
    other = SlotFactory()
    text = choose(site, Slot, "cancel", UNKNOWN_ID, sure="1")
    assert "1 of the 1 selected rows are no longer in the list." in text
    other.refresh_from_db()
    assert other.status == "scheduled"


def test_an_action_leaves_out_a_row_that_the_filter_of_the_list_no_longer_finds(site):
    pending, confirmed = (BookingFactory(status=status) for status in ("pending", "confirmed"))
    path = f"{url_of(Booking, 'changelist')}?status__exact=pending"
    body = {"action": "mark_confirmed", "_selected_action": [pending.pk, confirmed.pk]}
    text = site.post(path, body, follow=True).content.decode()
    assert "1 of the 2 selected rows are no longer in the list." in text
    assert "1 booking confirmed." in text


def test_an_action_on_all_rows_counts_only_a_limited_number_of_rows(site):
    BookingFactory.create_batch(2)
    with CaptureQueriesContext(connection) as queries:
        text = choose(site, Booking, "mark_confirmed", UNKNOWN_ID, select_across="1")
    assert "2 bookings confirmed." in text
    counts = [each["sql"] for each in queries if "COUNT(" in each["sql"].upper()]
    assert counts
    assert [sql for sql in counts if "LIMIT" not in sql] == []


def test_an_action_takes_a_limited_number_of_rows(site, monkeypatch):
    monkeypatch.setattr(pages, "MAX_ROWS", 2)
    BookingFactory.create_batch(3)
    first = Booking.objects.first().pk
    text = choose(site, Booking, "mark_confirmed", first, select_across="1")
    assert "Select at most 2 rows at a time." in text
    assert not Booking.objects.filter(status="confirmed").exists()


def change_status_slowly(monkeypatch, delay):
    """Call `delay` before each change of a booking's status."""
    change = services.change_status

    def change_slowly(**options):
        delay()
        return change(**options)

    monkeypatch.setattr(services, "change_status", change_slowly)


def exceed_the_time_limit_of_statements():
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 1")
        cursor.execute("SELECT pg_sleep(60)")


@pytest.mark.django_db(transaction=True)
def test_an_action_stops_before_the_time_limit_and_says_how_many_rows_are_left(site, monkeypatch):
    passed = [0.0]
    monkeypatch.setattr(deadlines, "monotonic", lambda: passed[0])
    # The action stops after four fifths of the time limit, and so after three changes.
    change_takes = 0.3 * deadlines.REQUEST_LIMIT
    change_status_slowly(monkeypatch, lambda: passed.append(passed.pop() + change_takes))
    ids = [booking.pk for booking in BookingFactory.create_batch(5)]
    body = {"action": "mark_confirmed", "_selected_action": ids}
    path = url_of(Booking, "changelist")
    assert site.post(path, body).status_code == 302
    text = site.get(path).content.decode()
    assert "3 bookings confirmed." in text
    assert "2 rows are left" in text
    assert Booking.objects.filter(status="confirmed").count() == 3


@pytest.mark.django_db(transaction=True)
def test_an_action_that_waits_too_long_for_a_row_says_how_many_rows_are_left(site, monkeypatch):
    first, second, third = (booking.pk for booking in BookingFactory.create_batch(3))
    delays = iter([lambda: None, exceed_the_time_limit_of_statements])
    change_status_slowly(monkeypatch, lambda: next(delays)())
    text = choose(site, Booking, "mark_confirmed", first, second, third)
    assert "1 booking confirmed." in text
    assert "2 rows are left" in text
    assert Booking.objects.filter(status="confirmed").count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_action_that_changes_nothing_within_the_time_limit_gets_a_503(site, monkeypatch):
    change_status_slowly(monkeypatch, exceed_the_time_limit_of_statements)
    body = {"action": "mark_confirmed", "_selected_action": [BookingFactory().pk]}
    assert site.post(url_of(Booking, "changelist"), body).status_code == 503


def test_the_largest_deletion_can_be_confirmed(site, monkeypatch):
    """The page sends a form field for each row, and Django accepts at most 1,000 fields."""
    deleted = []
    monkeypatch.setattr(CalendarAdmin, "delete_row", lambda *args: deleted.append(args))
    Calendar.objects.bulk_create(Calendar(name=f"Chair {n}") for n in range(pages.MAX_ROWS))
    first = Calendar.objects.first().pk
    question = choose(site, Calendar, "delete_selected", first, select_across="1")
    ids = re.findall(r'name="_selected_action" value="([^"]*)"', question)
    assert len(ids) == pages.MAX_ROWS
    choose(site, Calendar, "delete_selected", *ids, post="yes", csrfmiddlewaretoken="x")
    assert len(deleted) == pages.MAX_ROWS


def test_either_all_selected_rows_are_deleted_or_none(site):
    free, booked = SlotFactory.create_batch(2)

    def book_it(*args):
        BookingFactory(
            slot=booked,
            service=booked.service,
            start_time=booked.start_time,
            blocked=booked.blocked,
        )
        return [], {}, set(), []

    with pytest.MonkeyPatch.context() as patch:
        # Somebody books between the confirmation page and the deletion.
        patch.setattr(pages.StrictAdmin, "get_deleted_objects", book_it)
        text = choose(site, Slot, "delete_selected", free.pk, booked.pk, post="yes")
    assert "Nothing was deleted." in text
    assert "Successfully" not in text
    assert Slot.objects.count() == 2
    assert not LogEntry.objects.exists()


def test_no_message_claims_that_a_protected_row_was_deleted(site):
    slot = SlotFactory()

    def book_it(*args):
        BookingFactory(
            slot=slot, service=slot.service, start_time=slot.start_time, blocked=slot.blocked
        )
        return [], {}, set(), []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages.StrictAdmin, "get_deleted_objects", book_it)
        path = url_of(Slot, "delete", slot.pk)
        text = site.post(path, {"post": "yes"}, follow=True).content.decode()
    assert "was deleted successfully" not in text
    assert 'class="error"' in text
    assert Slot.objects.exists()
    assert not LogEntry.objects.exists()


# --- URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "start_time__year=abc",
        "start_time__year=99999",
        "start_time__year=9999",
        "start_time__year=0",
        "start_time__month=5",
        "start_time__year=2024&start_time__month=13",
        "start_time__year=2024&start_time__month=2&start_time__day=31",
        "start_time__year=2024&start_time__day=3",
        "start_time__gte=abc",
        "status__exact=%00",
        "q=%00&status__exact=held%00",
        "e=1&start_time__year=abc",
    ],
)
def test_a_url_with_invalid_parameters_redirects_to_the_whole_list(site, query):
    BookingFactory()
    response = site.get(f"{url_of(Booking, 'changelist')}?{query}", follow=True)
    assert response.status_code == 200
    assert response.redirect_chain[-1][0] == url_of(Booking, "changelist")
    text = response.content.decode()
    assert "The address of the list contains an invalid parameter" in text
    assert "database" not in text


@pytest.mark.parametrize("pk", ["abc", "%00", "9" * 400, "_", UNKNOWN_ID])
@pytest.mark.parametrize("kind", ["change", "delete", "history", "password"])
def test_a_url_with_an_invalid_or_unknown_id_redirects_or_shows_an_error_page(site, kind, pk):
    response = site.get(f"/admin/accounts/user/{pk}/{kind}/")
    assert response.status_code in (302, 403, 404)
    if response.status_code != 302:
        page(response, response.status_code)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/nothing/", 404),
        ("/admin/catalog/nothing/", 404),
        ("/admin/r/1/abc/", 404),
        ("/admin/bookings/delivery/add/", 403),
        ("/admin/bookings/webhook/?secret__startswith=w", 400),
        ("/admin/bookings/webhook/?_popup=1&_to_field=secret", 400),
        ("/admin/autocomplete/?app_label=a&model_name=b&field_name=c", 403),
        ("/admin/autocomplete/?app_label=accounts&model_name=user&field_name=bookings", 403),
        ("/admin/logout/", 405),
    ],
)
def test_refusals_are_shown_on_a_page(site, path, status):
    text = page(site.get(path), status)
    assert 'href="/admin/"' in text
    if "/bookings/" in path:
        assert "Back to the list of" in text


@pytest.mark.parametrize(
    ("path", "corrected"),
    [
        ("/admin", "/admin/"),
        ("/admin/catalog", "/admin/catalog/"),
        ("/admin/catalog/service?q=a", "/admin/catalog/service/?q=a"),
    ],
)
def test_a_missing_slash_is_added(site, path, corrected):
    response = site.get(path, follow=True)
    assert response.status_code == 200
    assert response.redirect_chain[-1][0] == corrected


def test_invalid_cookies_do_not_sign_in(client, boss):
    for name in ("sessionid", "messages", "csrftoken"):
        for value in ("", "x", "x" * 3000, "\0", "\xff" * 9, "a.b:c", '"', "[]", "{}" * 50):
            client.cookies.clear()
            client.cookies[name] = value
            assert client.get("/admin/").status_code in (302, 400)
            assert client.get("/admin/login/").status_code in (200, 400)


class TestFormsOfUsersWhoseSessionHasEnded:
    WORDS = "You were signed out, so nothing was changed."

    @pytest.mark.parametrize(
        ("referer", "after"),
        [
            ("http://testserver/admin/reports/revenue/?to=2026", "/reports/revenue/%3Fto%3D2026"),
            ("http://testserver/", "/admin/import/"),
            ("", "/admin/import/"),
            ("http://[x", "/admin/import/"),
        ],
    )
    def test_signing_in_leads_back_to_the_page_of_the_form(self, client, referer, after):
        response = client.post("/admin/import/", headers={"Referer": referer})
        assert response["Location"].startswith("/admin/login/?next=/admin/")
        assert response["Location"].endswith(after)
        assert self.WORDS in client.get(response["Location"]).content.decode()

    @pytest.mark.parametrize(
        ("method", "path"), [("get", "/admin/import/"), ("post", "/admin/logout/")]
    )
    def test_opening_a_page_or_signing_out_shows_no_such_message(self, client, method, path):
        html = getattr(client, method)(path, follow=True).content.decode()
        assert "Password" in html
        assert self.WORDS not in html
