"""The list of bookings: its order, filters, search and actions."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.emails import no_mailbox
from accounts.models import User, digits_of
from accounts.tests.factories import ProviderFactory, UserFactory, staff
from bookings import services
from bookings.desk.search import found_by, person
from bookings.desk.tests.conftest import LIST, NOW, START
from bookings.models import Booking
from bookings.tests.factories import BookingFactory, SlotFactory
from bookings.tests.jobs import work
from bookit.tests.plans import planning_without
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def found(desk, **query):
    response = desk.get(LIST, query)
    assert response.status_code == 200
    return [*response.context["cl"].result_list]


def booked(start_time, **more):
    return BookingFactory(start_time=start_time, **more)


def act(desk, action, bookings, **more):
    """Run an action, refresh the bookings, and return the text of the page that follows."""
    rows = [str(each.pk) for each in bookings]
    response = desk.post(LIST, {"action": action, "_selected_action": rows, **more}, follow=True)
    assert response.status_code == 200
    for booking in bookings:
        booking.refresh_from_db()
    return response.content.decode()


# --- order and filters --------------------------------------------------------------------------


def test_the_list_begins_with_the_first_booking_of_today_and_hides_past_days(desk):
    later, soon, earlier_today = (
        booked(NOW + 2 * DAY),
        booked(NOW + DAY),
        booked(NOW - timedelta(hours=2)),
    )
    past, long_past = booked(NOW - DAY), booked(NOW - 2 * DAY)
    assert found(desk) == [earlier_today, soon, later]
    assert found(desk, start_time__lt=NOW.isoformat()) == [earlier_today, past, long_past]
    everything = found(desk, start_time__isnull="False")
    assert everything == [later, soon, earlier_today, past, long_past]


def test_today_begins_at_midnight_of_the_signed_in_user(desk):
    """In Paris, where the receptionist is, Monday begins an hour before it begins in UTC."""
    monday = booked(NOW.replace(hour=0) - timedelta(minutes=59))
    booked(NOW.replace(hour=0) - timedelta(minutes=61))
    assert found(desk) == [monday]


def test_months_are_in_the_zone_of_the_signed_in_user(desk):
    """In UTC, the first hour of a month in Paris belongs to the previous month."""
    for start_time in (NOW, datetime(2026, 11, 30, 23, 30, tzinfo=UTC)):
        booked(start_time)
    text = desk.get(LIST).content.decode()
    assert "November 2026" in text
    assert "December 2026" in text
    assert "October" not in text


def test_a_search_also_finds_past_bookings_by_each_detail(desk, haircut):
    user = UserFactory(name="Ana Silva", email="ana@example.com", phone="+351 912 345 678")
    booking = booked(NOW - 9 * DAY, user=user, service=haircut, attendee_name="Tiago")
    booked(NOW - 9 * DAY, user=UserFactory(name="Zed"))
    for words in ("ana silva", "ana@", "912 345", "Tiago", "Haircut", "Chair", str(booking.pk)):
        assert found(desk, q=words) == [booking], words


@pytest.mark.parametrize(
    ("words", "is_found"),
    [
        ("silva ana", True),  # in any order
        ("ana maria", True),
        ("ANA SIL", True),
        ("ana li", True),  # a short word matches only the beginning of a word
        ("li", True),
        ("lv", False),
        ("ana santos", False),
        ("351912345678", True),
        ("(912) 345-678", True),
        ("12", False),
        ("100%", False),
        ("_", False),
        ("\\", False),
    ],
)
@pytest.mark.parametrize("is_attendee", [False, True])
def test_a_search_finds_bookings_that_match_all_words(desk, words, is_found, is_attendee, haircut):
    details = {
        "name": "Ana Maria Lima Silva",
        "phone": "+351 912 345 678",
        "email": "x@example.com",
    }
    if is_attendee:
        details = {f"attendee_{name}": value for name, value in details.items()}
        booking = booked(START, user=UserFactory(name="Zed"), service=haircut, **details)
    else:
        booking = booked(START, user=UserFactory(**details), service=haircut)
    # The words must not match this booking, so its user does not have the default name.
    booked(START + DAY, user=UserFactory(name="Rosa"), service=haircut, attendee_name="Carla")
    assert found(desk, q=words) == ([booking] if is_found else [])


def test_a_search_ignores_the_address_of_a_user_without_a_mailbox(desk):
    user = UserFactory(name="Rosa", phone="+351 912 345 678")
    user.email = no_mailbox(user.pk)
    user.save()
    booking = booked(START, user=user)
    for words in ("customer", "invalid", "rosa invalid", str(user.pk)[-6:]):
        assert found(desk, q=words) == [], words
    assert found(desk, q="rosa") == found(desk, q="912 345") == [booking]


def test_a_search_reads_users_and_attendees_through_their_indexes(desk):
    for _ in range(3):
        booked(START, attendee_name="Tiago")
    with CaptureQueriesContext(connection) as captured:
        found_by("Tiago", among=Booking.objects.all())
    [search] = [each["sql"] for each in captured]
    # With few rows, PostgreSQL would rather read whole tables, or whole indexes in their order.
    with planning_without("seqscan", "indexscan", "indexonlyscan"), connection.cursor() as cursor:
        people = User.objects.alias(digits=digits_of("phone"))
        assert "user_search" in people.filter(person("Tiago", "name", "email")).explain()
        assert "user_by_phone" in people.filter(person("912 345", "name", "email")).explain()
        cursor.execute(f"EXPLAIN {search}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Scan on booking_by_attendee" in plan
    assert "Seq Scan on bookings_booking" not in plan


@pytest.mark.one_server("opens the list in a transaction that has changed a reference table")
def test_a_search_that_matches_many_bookings_finds_them_all(desk, monkeypatch):
    bookings = [booked(START + number * DAY, attendee_name="Tiago") for number in range(3)]
    booked(START)
    monkeypatch.setattr("bookit.adminsite.search.MAX_COUNTED", 3)
    with CaptureQueriesContext(connection) as few:
        assert found(desk, q="tiago") == bookings[::-1]
    monkeypatch.setattr("bookit.adminsite.search.MAX_COUNTED", 2)
    with CaptureQueriesContext(connection) as many:
        assert found(desk, q="tiago") == bookings[::-1]
    # One statement finds the ids of a few bookings. The list uses OR only if there are many.
    assert len([each for each in few if "UNION ALL" in each["sql"]]) == 1
    between_tables = ' OR "bookings_booking"."calendar_id" IN '
    assert not any(between_tables in each["sql"] for each in few)
    assert any(between_tables in each["sql"] for each in many)
    assert found(desk, q="tiago", status__exact="held") == []


def test_a_booking_that_meets_two_conditions_counts_once(desk, monkeypatch):
    bookings = [
        booked(START + number * DAY, user=UserFactory(name="Tiago"), attendee_name="Tiago")
        for number in range(2)
    ]
    monkeypatch.setattr("bookit.adminsite.search.MAX_COUNTED", 2)
    rows, are_few = found_by("tiago", among=Booking.objects.all())
    assert ({*rows}, are_few) == ({*bookings}, True)
    monkeypatch.setattr("bookit.adminsite.search.MAX_COUNTED", 1)
    rows, are_few = found_by("tiago", among=Booking.objects.all())
    assert ({*rows}, are_few) == ({*bookings}, False)


def test_a_link_lists_the_bookings_of_a_customer(desk, book, ana):
    booking = book()
    booked(START)
    assert found(desk, user__id__exact=ana.pk) == [booking]
    response = desk.get(LIST, {"user__id__exact": ana.pk})
    assert response.context["title"] == "Bookings of Ana Silva"
    for unknown in (UserFactory.build().pk, "x", ""):
        assert desk.get(LIST, {"user__id__exact": unknown}, follow=True).status_code == 200


def test_the_title_names_a_user_without_bookings_only_to_staff_who_may_see_accounts(desk, ana):
    def title():
        return desk.get(LIST, {"user__id__exact": ana.pk}).context["title"]

    assert "Ana" not in str(title())
    desk.force_login(staff(["bookings.view_booking", "accounts.view_user"]))
    assert title() == "Bookings of Ana Silva"


def test_a_link_lists_the_bookings_of_a_slot(desk, haircut, ana):
    haircut.mode = "slots"
    haircut.save()
    slots = [SlotFactory(service=haircut, start_time=START + number * DAY) for number in (0, 1)]
    bookings = [services.create_booking(actor=ana, slot_id=slot.pk, at=NOW) for slot in slots]
    response = desk.get(LIST, {"slot__id__exact": slots[0].pk})
    assert response.context["title"] == "Haircut on Tue 1 Dec, 10:00"
    assert [*response.context["cl"].result_list] == bookings[:1]


@pytest.mark.parametrize("name", ["calendar__id", "service__id", "calendar__provider__id"])
def test_the_list_is_filtered_by_calendar_service_and_provider(desk, name):
    mine, _ = (
        booked(START, service=ServiceFactory(calendar=CalendarFactory(provider=ProviderFactory())))
        for _ in range(2)
    )
    values = {
        "calendar__id": mine.calendar_id,
        "service__id": mine.service_id,
        "calendar__provider__id": mine.calendar.provider_id,
    }
    assert found(desk, **{f"{name}__exact": values[name]}) == [mine]
    text = desk.get(LIST).content.decode()
    assert f"{name}__exact={values[name]}" in text


def test_filters_offer_a_limited_number_of_calendars(desk, monkeypatch):
    monkeypatch.setattr("bookings.desk.filters.MAX_CHOICES", 2)
    for _ in range(4):
        booked(START, service=ServiceFactory())
    assert desk.get(LIST).content.decode().count("?calendar__id__exact=") == 2


@pytest.mark.parametrize("name", ["calendar__id", "service__id", "calendar__provider__id"])
def test_a_filter_shows_a_chosen_row_that_is_not_among_its_first_choices(desk, monkeypatch, name):
    monkeypatch.setattr("bookings.desk.filters.MAX_CHOICES", 2)
    for number in range(4):
        provider = ProviderFactory(name=f"Person {number}")
        calendar = CalendarFactory(name=f"Chair {number}", provider=provider)
        last = booked(START, service=ServiceFactory(title=f"Cut {number}", calendar=calendar))
    value = {
        "calendar__id": last.calendar_id,
        "service__id": last.service_id,
        "calendar__provider__id": last.calendar.provider_id,
    }[name]
    [spec] = [
        each
        for each in desk.get(LIST, {f"{name}__exact": value}).context["cl"].filter_specs
        if getattr(each, "lookup_kwarg", "") == f"{name}__exact"
    ]
    assert [pk for pk, _ in spec.lookup_choices][2:] == [value]
    response = desk.get(LIST, {f"{name}__exact": "x"})
    assert response.status_code == 302


def test_the_list_can_be_filtered_by_provider_if_there_is_only_one(desk):
    provider = ProviderFactory()
    mine = booked(START, service=ServiceFactory(calendar=CalendarFactory(provider=provider)))
    booked(START, service=ServiceFactory(calendar=CalendarFactory()))
    assert found(desk, calendar__provider__id__exact=provider.pk) == [mine]


def test_the_filter_of_providers_names_no_other_users(desk):
    booked(START)
    customer = UserFactory(name="Ana Silva")
    response = desk.get(LIST, {"calendar__provider__id__exact": customer.pk})
    assert [*response.context["cl"].result_list] == []
    assert customer.name not in response.content.decode()


def test_a_row_says_when_who_and_what(desk, book):
    book()
    text = desk.get(LIST).content.decode()
    for words in (
        "Tue 1 Dec, 10:00\N{EN DASH}11:00",
        "Europe/Lisbon",
        "Ana Silva",
        "+351 912 345 678",
        "Haircut",
        "Chair",
        '<span class="state state-pending">Pending</span>',
    ):
        assert words in text, words


def test_the_number_of_queries_does_not_depend_on_the_rows(desk, django_assert_num_queries):
    booked(START)
    with django_assert_num_queries(QUERIES):
        found(desk)
    for _ in range(4):
        booked(START, service=ServiceFactory(calendar=CalendarFactory(provider=ProviderFactory())))
    with django_assert_num_queries(QUERIES):
        found(desk)


QUERIES = 12


def test_an_unknown_value_of_the_filter_of_holds_is_refused(desk):
    assert desk.get(LIST, {"holds": "without"}).status_code == 200
    assert desk.get(LIST, {"holds": "x"}).status_code == 302


def test_rows_are_counted_only_up_to_a_limit(desk, monkeypatch):
    for module in ("bookit.adminsite.changelist", "bookit.database.counts"):
        monkeypatch.setattr(f"{module}.MAX_COUNTED", 2)
    for _ in range(5):
        booked(START)
    with CaptureQueriesContext(connection) as captured:
        found(desk)
    texts = [each["sql"] for each in captured if "COUNT(" in each["sql"]]
    assert len(texts) == 1
    assert "LIMIT 3" in texts[0]


@pytest.mark.one_server("opens the list in a transaction that has changed a reference table")
def test_pages_end_where_rows_are_no_longer_counted(desk, monkeypatch):
    monkeypatch.setattr("bookings.desk.admin.BookingAdmin.list_per_page", 1)
    for module in ("bookit.adminsite.changelist", "bookit.database.counts"):
        monkeypatch.setattr(f"{module}.MAX_COUNTED", 2)
    monkeypatch.setattr("bookit.adminsite.changelist.BoundedPaginator.most", 2)
    for _ in range(5):
        booked(START)
    response = desk.get(LIST)
    assert (
        "The pages show the first 2; search or filter to find others." in response.content.decode()
    )
    assert response.context["cl"].paginator.num_pages == 2
    assert desk.get(LIST, {"p": "3"}).status_code == 302


def test_each_booking_is_on_one_page_and_only_the_rows_of_a_page_are_joined(desk, monkeypatch):
    monkeypatch.setattr("bookings.desk.admin.BookingAdmin.list_per_page", 2)
    bookings = [booked(START + hour * HOUR) for hour in range(7)]
    responses = [desk.get(LIST, {"p": page}) for page in range(1, 5)]
    lists = [response.context["cl"] for response in responses]
    assert [each for shown in lists for each in shown.result_list] == bookings
    # Only the subquery, which joins no other table, skips the rows of earlier pages.
    statement = str(lists[3].paginator.page(4).object_list.query)
    outer, _, inner = statement.partition(" IN (SELECT ")
    assert "JOIN" in outer
    assert "JOIN" not in inner
    assert statement.count("OFFSET 6") == inner.count("OFFSET 6)") == 1


def test_the_list_can_be_ordered_only_by_a_column_with_an_index(desk, book):
    book()
    response = desk.get(LIST)
    shown = response.context["cl"]
    columns = [shown.get_ordering_field(column) for column in shown.list_display]
    assert [column for column in columns if column] == ["start_time"]


def test_the_choices_of_filters_are_not_counted(desk, book):
    book()
    with CaptureQueriesContext(connection) as captured:
        assert desk.get(LIST, {"_facets": "True"}).status_code == 200
        texts = [each["sql"] for each in captured]
    assert any("COUNT(" in text for text in texts)
    assert not any("FILTER" in text for text in texts)


def test_the_filter_of_days_says_which_days_the_list_shows(desk, book):
    book()
    assert "Day: <strong>Today and later</strong>" in desk.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("choice", "first", "last"), [("Next 7 days", 0, 6), ("Last 30 days", -29, 0)]
)
def test_a_filter_of_several_days_includes_today(desk, choice, first, last):
    _before, *within, _after = (
        booked(NOW + days * DAY) for days in (first - 1, first, last, last + 1)
    )
    shown = desk.get(LIST).context["cl"]
    [query] = [
        each["query_string"]
        for spec in shown.filter_specs
        for each in spec.choices(shown)
        if each["display"] == choice
    ]
    assert [*desk.get(f"{LIST}{query}").context["cl"].result_list] == within


# --- actions ------------------------------------------------------------------------------------


def test_an_action_says_how_many_succeeded_and_why_others_did_not(desk, rui):
    pending = [booked(START), booked(START)]
    cancelled = [booked(START, status="cancelled") for _ in range(7)]
    text = act(desk, "mark_confirmed", [*pending, *cancelled])
    assert "2 bookings confirmed." in text
    reason = "7 not changed. A booking that is cancelled cannot become confirmed."
    assert text.count(reason) == 1
    assert "and 2 more" in text
    assert {each.status for each in pending} == {"confirmed"}
    assert {each.events.get().actor for each in pending} == {rui}


@pytest.mark.parametrize("status", ["completed", "no_show"])
def test_an_action_records_only_after_the_start_whether_a_customer_came(desk, status):
    begun, upcoming = booked(NOW), booked(START)
    text = act(desk, f"mark_{status}", [begun, upcoming])
    assert "1 not changed. Whether the customer came can be recorded only after the start." in text
    assert (begun.status, upcoming.status) == (status, "pending")


def test_cancelling_asks_for_a_reason_first(desk, rui):
    bookings = [booked(START, user=UserFactory(name="Eva Luz")), booked(START)]
    text = act(desk, "mark_cancelled", bookings)
    assert "Eva Luz" in text
    assert 'name="reason"' in text
    assert {each.status for each in bookings} == {"pending"}

    text = act(desk, "mark_cancelled", bookings, reason="Water damage")
    assert "2 bookings cancelled." in text
    assert {(each.status, each.cancellation_reason) for each in bookings} == {
        ("cancelled", "Water damage")
    }
    assert {each.events.get().actor for each in bookings} == {rui}


def test_the_question_counts_only_bookings_that_can_be_cancelled(desk):
    pending = booked(START, user=UserFactory(name="Eva Luz"))
    others = [
        booked(START, status=status, user=UserFactory(name="Zed"))
        for status in ("cancelled", "expired", "completed", "no_show")
    ]
    text = act(desk, "mark_cancelled", [pending, *others])
    assert "This booking will be cancelled" in text
    assert "Eva Luz" in text
    assert "Zed" not in text
    # The button sends only this booking.
    assert re.findall(r'name="_selected_action" value="([^"]+)"', text) == [str(pending.pk)]
    assert pending.status == "pending"

    text = act(desk, "mark_cancelled", others)
    assert 'name="reason"' not in text
    assert "not changed." in text
    assert {each.status for each in others} == {"cancelled", "expired", "completed", "no_show"}


def test_a_reason_that_is_too_long_cancels_nothing(desk):
    booking = booked(START)
    assert "at most 500 characters" in act(desk, "mark_cancelled", [booking], reason="x" * 501)
    assert booking.status == "pending"


def test_too_many_bookings_are_not_cancelled_at_once(desk, monkeypatch):
    monkeypatch.setattr("bookings.desk.admin.MAX_CANCELLED", 1)
    bookings = [booked(START), booked(START)]
    text = act(desk, "mark_cancelled", bookings)
    assert "Cancel at most 1 bookings at a time." in text
    assert 'name="reason"' not in text
    assert {each.status for each in bookings} == {"pending"}


def test_mails_are_sent_again(desk, book):
    booking, without_mail = book(), booked(START + DAY)
    work()
    mail.outbox.clear()
    text = act(desk, "resend_mail", [booking, without_mail])
    assert "1 email will be sent again." in text
    assert "1 not changed." in text
    work()
    assert [message.to for message in mail.outbox] == [["ana@example.com"]]


def test_every_action_is_offered(desk):
    booked(START)
    text = desk.get(LIST).content.decode()
    for action in ("confirmed", "completed", "no_show", "cancelled"):
        assert f'value="mark_{action}"' in text
    assert 'value="resend_mail"' in text


def test_the_list_links_to_the_diary_only_for_staff_who_may_see_it(client, desk):
    link = f'<a href="{reverse("admin:bookings_diary")}">Diary</a></li>'
    assert link in desk.get(LIST).content.decode()
    client.force_login(staff(["bookings.change_booking"]))
    response = client.get(LIST)
    assert response.status_code == 200
    assert link not in response.content.decode()
