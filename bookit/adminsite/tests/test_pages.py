"""The admin site: the pages of every model, and the effects of actions."""

import re
from datetime import datetime, timedelta

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.emails import no_mailbox
from accounts.models import User
from accounts.tests.factories import PASSWORD, ProviderFactory, UserFactory
from bookings.models import Booking, BookingEvent, Slot
from bookings.tests.factories import (
    BookingFactory,
    DeliveryFactory,
    SlotFactory,
    WaitlistEntryFactory,
)
from bookit.adminsite.tests.addresses import url_of
from catalog.models import Calendar, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory
from reviews.models import Review
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)


def test_exactly_these_models_are_registered():
    """A new admin page of a model is listed here, and the fixture `world` creates a row for it."""
    labels = {model._meta.label for model in MODELS}

    assert labels == {
        "accounts.ApiKey",
        "accounts.Role",
        "accounts.Session",
        "accounts.User",
        "bookings.Booking",
        "bookings.BookingEvent",
        "bookings.Delivery",
        "bookings.MailText",
        "bookings.Slot",
        "bookings.WaitlistEntry",
        "bookings.Webhook",
        "catalog.Calendar",
        "catalog.Profile",
        "catalog.Service",
        "mails.MailCount",
        "procrastinate.ProcrastinateJob",
        "reviews.Review",
        "token_blacklist.BlacklistedToken",
        "token_blacklist.OutstandingToken",
    }  # Opening hours and time off are on the page of their calendar.


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_a_list_can_be_opened_and_searched_and_the_page_of_a_row_opens(site, world, model):
    options = admin.site._registry[model]
    assert options.list_filter
    assert options.search_fields

    response = site.get(url_of(model, "changelist"))
    assert response.status_code == 200
    assert response.context["cl"].result_count >= 1
    assert site.get(url_of(model, "changelist"), {"q": "no such thing"}).status_code == 200
    row = model.objects.first()
    assert site.get(url_of(model, "change", row.pk)).status_code == 200


@pytest.mark.parametrize("model", [User, Calendar, Service], ids=lambda model: model._meta.label)
def test_the_page_for_a_new_row_opens(site, model):
    assert site.get(url_of(model, "add")).status_code == 200


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_a_list_of_several_rows_takes_at_most_twelve_queries(
    site, world, model, django_assert_max_num_queries
):
    BookingFactory.create_batch(5)
    ReviewFactory.create_batch(5)
    for slot in SlotFactory.create_batch(5):
        WaitlistEntryFactory(slot=slot, user=UserFactory())
    DeliveryFactory.create_batch(5)

    with django_assert_max_num_queries(12):
        assert site.get(url_of(model, "changelist")).status_code == 200


def test_a_csv_file_has_plain_text_and_exact_times(site, world):
    text = site.get("/admin/accounts/session/export.csv").getvalue().decode()
    assert "a browser 192.0.2.1" in text
    assert re.search(r",\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00,", text)


@pytest.mark.parametrize("model", [BookingEvent, Review], ids=lambda model: model.__name__)
def test_events_and_reviews_cannot_be_added_by_hand(site, model):
    assert site.get(url_of(model, "add")).status_code == 403


@pytest.mark.parametrize("factory", [UserFactory, ProviderFactory])
def test_a_user_without_staff_permissions_cannot_open_the_admin_site(client, factory):
    client.force_login(factory())

    assert client.get("/admin/").status_code == 302


def test_an_action_confirms_a_booking_and_the_history_names_the_admin(site, boss):
    booking = BookingFactory()

    response = site.post(
        url_of(Booking, "changelist"),
        {"action": "mark_confirmed", "_selected_action": [str(booking.pk)]},
        follow=True,
    )

    assert "1 booking confirmed." in response.content.decode()
    booking.refresh_from_db()
    assert booking.status == "confirmed"
    assert booking.events.get().actor == boss


def test_an_action_that_the_state_forbids_says_why(site):
    booking = BookingFactory(status="cancelled")

    response = site.post(
        url_of(Booking, "changelist"),
        {"action": "mark_confirmed", "_selected_action": [str(booking.pk)]},
        follow=True,
    )

    assert "cannot become confirmed" in response.content.decode()
    booking.refresh_from_db()
    assert booking.status == "cancelled"


def test_a_deleted_booking_leaves_its_history(site):
    booking = BookingFactory()

    site.post(url_of(Booking, "delete", booking.pk), {"post": "yes"})

    assert not Booking.objects.filter(pk=booking.pk).exists()
    events = BookingEvent.objects.filter(booking_id=booking.pk).values_list("type", flat=True)
    assert list(events) == ["booking.cancelled", "booking.deleted"]


def test_selected_bookings_leave_their_history_when_they_are_deleted(site):
    bookings = BookingFactory.create_batch(2)

    site.post(
        url_of(Booking, "changelist"),
        {
            "action": "delete_selected",
            "_selected_action": [str(booking.pk) for booking in bookings],
            "post": "yes",
        },
    )

    assert not Booking.objects.exists()
    assert BookingEvent.objects.filter(type="booking.deleted").count() == 2


def booked(slot, **fields):
    return BookingFactory(
        slot=slot, service=slot.service, start_time=slot.start_time, blocked=slot.blocked, **fields
    )


def test_selected_slots_are_cancelled_with_their_bookings(site, boss):
    slots = SlotFactory.create_batch(2)
    booking = booked(slots[0])

    response = site.post(
        url_of(Slot, "changelist"),
        {"action": "cancel", "sure": "1", "_selected_action": [str(slot.pk) for slot in slots]},
        follow=True,
    )

    assert "2 slots cancelled." in response.content.decode()
    assert set(Slot.objects.values_list("status", flat=True)) == {"cancelled"}
    booking.refresh_from_db()
    assert booking.status == "cancelled"
    assert booking.events.get().actor == boss


def test_a_past_slot_is_not_cancelled_and_a_message_says_why(site):
    slot = SlotFactory(start_time=timezone.now() - timedelta(days=1))

    # Without this parameter, the list would show only today and later.
    response = site.post(
        f"{url_of(Slot, 'changelist')}?start_time__isnull=False",
        {"action": "cancel", "sure": "1", "_selected_action": [str(slot.pk)]},
        follow=True,
    )

    assert "A slot that has ended cannot be cancelled." in response.content.decode()
    assert Slot.objects.get().status == "scheduled"


@pytest.mark.parametrize("factory", [BookingFactory, ServiceFactory, UserFactory])
def test_a_search_for_an_id_ignores_spaces_around_it(site, factory):
    row, _other = factory.create_batch(2)
    response = site.get(url_of(type(row), "changelist"), {"q": f" {row.pk} "})
    assert [*response.context["cl"].result_list] == [row]


def test_the_list_of_slots_shows_how_many_seats_are_taken(site):
    booked(SlotFactory(capacity=7))

    response = site.get(url_of(Slot, "changelist"))

    assert 'class="field-seats">1 of 7</td>' in response.content.decode()


def test_a_slot_is_deleted_unless_it_has_bookings(site):
    slot, other = SlotFactory.create_batch(2)
    booked(other)

    for each in (slot, other):
        response = site.post(url_of(Slot, "delete", each.pk), {"post": "yes"}, follow=True)
    assert "This slot has bookings. Cancel it instead" in response.content.decode()
    site.post(
        url_of(Slot, "changelist"),
        {"action": "delete_selected", "_selected_action": [str(other.pk)], "post": "yes"},
    )

    assert Slot.objects.get() == other


@pytest.mark.parametrize(
    ("find", "reason"),
    [
        (lambda booking: booking.calendar, "This calendar has services."),
        (lambda booking: booking.service, "This service has bookings, slots or reviews."),
        (lambda booking: booking.slot, "This slot has bookings."),
    ],
)
def test_a_row_in_use_cannot_be_deleted_and_no_query_reads_all_its_bookings(site, find, reason):
    slot = SlotFactory(capacity=3)
    for seat in (1, 2, 3):
        booked(slot, seat=seat)
    row = find(Booking.objects.first())
    path = url_of(type(row), "delete", row.pk)

    with CaptureQueriesContext(connection) as queries:
        shown = site.get(path).content.decode()
        refused = site.post(path, {"post": "yes"})
    assert reason in shown
    assert 'value="yes"' not in shown
    assert reason in site.get(refused.url).content.decode()
    assert type(row).objects.filter(pk=row.pk).exists()
    assert not [
        each["sql"]
        for each in queries
        if 'FROM "bookings_booking"' in each["sql"] and "LIMIT 1" not in each["sql"]
    ]


def test_a_calendar_without_services_is_deleted(site):
    calendar = CalendarFactory()
    assert "This cannot be undone." in site.get(url_of(Calendar, "delete", calendar.pk)).text
    site.post(url_of(Calendar, "delete", calendar.pk), {"post": "yes"})
    assert not Calendar.objects.exists()


def test_the_delete_and_history_pages_show_the_name_of_the_booking(site):
    booking = BookingFactory(attendee_name="Ada Lovelace")
    name = f"{booking.service.title}, Ada Lovelace"
    for each in ("delete", "history"):
        shown = site.get(url_of(Booking, each, booking.pk)).content.decode()
        assert shown.count(name) >= 2  # in the breadcrumbs and in the heading


def test_a_deleted_review_no_longer_counts_in_the_rating(site):
    review = ReviewFactory(rating=2)
    Service.objects.filter(pk=review.service_id).update(rating_sum=7, rating_count=2)

    site.post(url_of(Review, "delete", review.pk), {"post": "yes"})

    service = Service.objects.get(pk=review.service_id)
    assert (service.rating_sum, service.rating_count) == (5, 1)


def test_opening_hours_are_written_as_times_of_day(site):
    calendar = CalendarFactory(name="Chair")
    form = {
        "name": "Chair",
        "timezone": "Europe/Lisbon",
        "provider": "",
        "hours-TOTAL_FORMS": "1",
        "hours-INITIAL_FORMS": "0",
        "hours-0-weekday": "0",
        "hours-0-opens": "09:30",
        "hours-0-closes": "24:00",
        "hours-0-calendar": str(calendar.pk),
        "time_off-TOTAL_FORMS": "0",
        "time_off-INITIAL_FORMS": "0",
    }

    site.post(url_of(Calendar, "change", calendar.pk), form)

    hours = calendar.hours.get()
    assert (hours.weekday, hours.opens, hours.closes) == (0, 570, 1440)

    response = site.post(
        url_of(Calendar, "change", calendar.pk), {**form, "hours-0-opens": "half past nine"}
    )
    assert "Must be a time of day" in response.content.decode()


def test_demoting_the_last_admin_is_refused_and_saves_nothing(site, boss):
    response = site.post(
        url_of(User, "change", boss.pk),
        {
            "email": boss.email,
            "name": "Renamed",
            "role": "user",
            "language": "en",
            "is_active": "on",
            "timezone": "UTC",
        },
        follow=True,
    )

    assert "last active admin" in response.content.decode()
    assert 'value="Renamed"' in response.content.decode()
    boss.refresh_from_db()
    assert (boss.role, boss.name) == ("admin", "Boss")


def test_signing_in_ignores_the_case_of_the_email_address(client, boss):
    client.post("/admin/login/", {"username": "BOSS@Example.com", "password": PASSWORD})

    assert client.get("/admin/").status_code == 200


def test_signing_in_is_limited_like_the_api(client, boss, settings):
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "auth": "3/minute"}
    for _ in range(3):
        client.post("/admin/login/", {"username": boss.email, "password": "wrong"})

    client.post("/admin/login/", {"username": boss.email, "password": PASSWORD})

    assert client.get("/admin/").status_code == 302


def form_with_hours(calendar, *spans):
    """Return the form of a calendar's page as a browser would send it, with these opening hours."""
    body = {
        "name": calendar.name,
        "timezone": "UTC",
        "provider": "",
        "hours-TOTAL_FORMS": len(spans),
        "hours-INITIAL_FORMS": calendar.hours.count(),
        "time_off-TOTAL_FORMS": 0,
        "time_off-INITIAL_FORMS": 0,
    }
    ids = list(calendar.hours.order_by("opens").values_list("pk", flat=True))
    for row, (weekday, opens, closes) in enumerate(spans):
        stored = {"id": ids[row]} if row < len(ids) else {}
        values = {"weekday": weekday, "opens": opens, "closes": closes, "calendar": calendar.pk}
        body |= {f"hours-{row}-{name}": value for name, value in {**values, **stored}.items()}
    return body


def test_opening_hours_are_checked_against_each_other_and_replaced_together(site):
    calendar = CalendarFactory()
    path = reverse("admin:catalog_calendar_change", args=[calendar.pk])

    def save(*spans):
        return site.post(path, form_with_hours(calendar, *spans))

    def stored():
        return list(calendar.hours.order_by("opens").values_list("weekday", "opens", "closes"))

    overlapping = save((0, "09:00", "12:00"), (0, "11:00", "13:00"))
    assert overlapping.status_code == 200
    assert "The opening hours of Monday overlap." in overlapping.content.decode()
    assert (
        "The closing time must be after the opening time."
        in save((0, "12:00", "12:00")).content.decode()
    )
    assert stored() == []
    assert save((0, "09:00", "12:00"), (0, "12:00", "17:00")).status_code == 302
    assert stored() == [(0, 540, 720), (0, 720, 1020)]
    # If the rows were saved one at a time, each row would overlap the old hours of the other row.
    assert save((0, "12:00", "18:00"), (0, "08:00", "12:00")).status_code == 302
    assert stored() == [(0, 480, 720), (0, 720, 1080)]


def test_no_message_claims_to_have_saved_a_refused_change(site, boss):
    path = reverse("admin:accounts_user_change", args=[boss.pk])
    body = {
        "email": boss.email,
        "name": boss.name,
        "timezone": "UTC",
        "language": "en",
        "role": "user",
    }
    page = site.post(path, {**body, "is_active": "on"}, follow=True).content.decode()
    assert "This is the last active admin" in page
    assert "was changed successfully" not in page
    boss.refresh_from_db()
    assert boss.role == "admin"


@pytest.mark.parametrize("factory", [CalendarFactory, ServiceFactory])
def test_a_page_for_a_new_row_hides_fields_that_only_stored_rows_have(site, factory):
    row = factory()
    assert "field-created" in site.get(url_of(row, "change", row.pk)).text
    page = site.get(url_of(row, "add")).text
    assert "DatabaseDefault" not in page
    assert "field-created" not in page


def test_the_page_of_a_booking_has_no_save_button(site, world):
    booking = Booking.objects.first()
    page = site.get(reverse("admin:bookings_booking_change", args=[booking.pk])).content.decode()
    assert 'name="_save"' not in page
    assert 'name="_continue"' not in page


@pytest.mark.parametrize("query", ["category=%00", "category__exact=%00", "q=%00"])
def test_a_null_character_in_a_url_causes_no_500(site, world, query):
    response = site.get(f"{reverse('admin:catalog_service_changelist')}?{query}")
    assert response.status_code < 500


def test_a_null_character_in_the_search_of_a_field_is_refused_with_its_cause(site, world):
    query = "app_label=catalog&model_name=service&field_name=calendar&term=%00"
    response = site.get(f"/admin/autocomplete/?{query}")
    assert response.status_code == 400
    assert "contains characters that cannot be stored" in response.content.decode()


# --- lists: their cost, searches, dates and filters -------------------------------------------


def queries_of(site, path, **query):
    """Return the SQL of all queries of a page."""
    with CaptureQueriesContext(connection) as captured:
        response = site.get(path, query)
    assert response.status_code == 200
    return [each["sql"] for each in captured.captured_queries]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_a_list_counts_its_table_once_and_does_not_search_it_for_choices_of_filters(
    site, world, model
):
    texts = queries_of(site, url_of(model, "changelist"))
    assert sum("COUNT(*)" in text for text in texts) == 1
    wasteful = ("DISTINCT", "DATE_TRUNC")
    assert [text for text in texts if any(word in text for word in wasteful)] == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_the_dates_and_the_order_of_a_list_have_an_index(model):
    options = admin.site._registry[model]
    with connection.cursor() as cursor:
        described = connection.introspection.get_constraints(cursor, model._meta.db_table)
    indexes = [each for each in described.values() if each["index"] or each["unique"]]
    leading = {each["columns"][0] for each in indexes if each["columns"]}
    order = (options.ordering or model._meta.ordering)[0]
    wanted = {options.date_hierarchy, order.lstrip("-")} - {None, "pk"}
    assert {model._meta.get_field(name).column for name in wanted} <= leading


def test_a_search_for_an_id_does_not_search_texts(site, world):
    booking = Booking.objects.first()
    texts = queries_of(site, url_of(Booking, "changelist"), q=str(booking.pk))
    assert not any("LIKE" in text for text in texts)
    response = site.get(url_of(Booking, "changelist"), {"q": str(booking.pk)})
    assert [row.pk for row in response.context["cl"].result_list] == [booking.pk]


@pytest.mark.parametrize("words", ['"Yoga', "'Yoga", '"Yoga"s'])
def test_a_search_can_begin_with_an_unmatched_quotation_mark(site, words):
    slot = SlotFactory(service__title=f"{words} outdoors")
    SlotFactory()

    response = site.get(url_of(Slot, "changelist"), {"q": words})

    assert [*response.context["cl"].result_list] == [slot]


def test_a_search_ignores_made_up_email_addresses(site):
    """They contain ids in hexadecimal, so a search for a name such as Ada would find others."""
    user = UserFactory(name="Rosa")
    user.email = no_mailbox(user.pk)
    user.save()
    rows = [user, CalendarFactory(provider=user), WaitlistEntryFactory(user=user)]
    for row in rows:
        changelist = url_of(type(row), "changelist")
        for words, found in (("rosa", [row]), (str(user.pk)[-6:], []), ("customer.invalid", [])):
            shown = site.get(changelist, {"q": words}).context["cl"].result_list
            assert [*shown] == found, (changelist, words)


def test_a_search_for_accounts_finds_ids_first_and_then_their_dates(site, world):
    # The query for the date hierarchy gets the ids that were found. Otherwise, PostgreSQL would
    # look for the first date in all accounts.
    [found] = User.objects.filter(role="provider")[:1]
    texts = queries_of(site, url_of(User, "changelist"), q=found.email)
    dates = [text for text in texts if "MIN(" in text]
    assert dates
    assert not any("LIKE" in text for text in dates), dates
    nothing = queries_of(site, url_of(User, "changelist"), q="zzqq")
    assert not any("MIN(" in text for text in nothing)


def test_a_list_offers_the_dates_that_have_rows(site):
    for moment in ("2026-01-31T23:59:59", "2026-03-01T00:00:00", "2028-12-31T23:59:59"):
        SlotFactory(start_time=datetime.fromisoformat(f"{moment}+00:00"))
    past_too = {"start_time__isnull": "False"}
    rows = site.get(url_of(Slot, "changelist"), past_too).context["cl"].queryset
    for kind in ("year", "month", "day"):
        assert rows.datetimes("start_time", kind) == [*Slot.objects.datetimes("start_time", kind)]


def test_a_list_of_services_can_be_filtered_by_category(site):
    for category in ("Barber", "", "Yoga", "Barber"):
        ServiceFactory(category=category)
    path = url_of(Service, "changelist")
    # This statement finds the categories without reading all services.
    assert any("WITH RECURSIVE" in text for text in queries_of(site, path))
    text = site.get(path).content.decode()
    assert "?category=Barber" in text
    assert "?category=Yoga" in text
    assert site.get(path, {"category": "Barber"}).context["cl"].result_count == 2


def test_the_history_is_in_words_even_if_the_booking_was_deleted(site):
    booking = BookingFactory(attendee_name="Ada Lovelace")
    deleted = BookingFactory()
    stays, gone = (
        BookingEvent.objects.create(
            calendar=each.calendar,
            booking=each,
            type="booking.created",
            at=timezone.now(),
            data={"status": "confirmed", "start_time": "2026-12-01T10:00:00+00:00"},
        )
        for each in (booking, deleted)
    )
    deleted.delete()
    shown = site.get(url_of(BookingEvent, "changelist")).content.decode()
    assert shown.count("Booked for Tue 1 Dec") == 2
    link = reverse("admin:bookings_booking_change", args=[booking.pk])
    assert f'<a href="{link}">{booking.service.title}, Ada Lovelace</a>' in shown
    assert f"<code>{gone.booking_id}</code>" in shown
    for event in (stays, gone):
        opened = site.get(url_of(BookingEvent, "change", event.pk))
        assert opened.context["title"].startswith("Booked for Tue 1 Dec")
        assert "&quot;status&quot;: &quot;confirmed&quot;" in opened.content.decode()


def test_a_search_field_says_what_it_searches(site):
    assert (
        'placeholder="Title, description, calendar, id"'
        in site.get(url_of(Service, "changelist")).text
    )
    assert 'placeholder="Name, email, phone or id"' in site.get(url_of(Booking, "changelist")).text
