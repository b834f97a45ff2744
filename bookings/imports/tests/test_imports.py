"""Imports of CSV files: dry runs, repeated imports, and what happens if a line is wrong."""

import csv
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.models import User
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.clock import complete_bookings, send_reminders
from bookings.imports import opening
from bookings.imports.files import decode
from bookings.imports.lines import KINDS
from bookings.imports.services import MAX_PROBLEMS, Problem, import_file, import_in_steps
from bookings.models import Booking, BookingEvent
from bookings.services import cancel_booking
from bookit.errors import Forbidden, Invalid
from bookit.tests.crowd import at_once
from catalog.models import Calendar, OpeningHours, Service

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
CUSTOMERS = "email,name,phone\nana@example.com,Ana Silva,+351 912 345 678\nBEN@example.com,Ben,\n"
CALENDARS = (
    "name,timezone,opening_hours\nChair 1,Europe/Lisbon,Mon-Fri 09:00-18:00; Sat 10:00-14:00\n"
)
SERVICES = (
    "title,calendar,price,duration_minutes,requires_confirmation\nHaircut,Chair 1,25.00,60,no\n"
)
BOOKINGS = (
    "customer_email,service,start_time,status\n"
    "ana@example.com,Haircut,2026-12-01 10:00,\n"
    "ana@example.com,Haircut,2026-11-03 10:00,completed\n"
    "ben@example.com,Haircut,2026-12-02T11:00:00Z,cancelled\n"
)
FILES = {
    "customers": CUSTOMERS,
    "calendars": CALENDARS,
    "services": SERVICES,
    "bookings": BOOKINGS,
}


@pytest.fixture
def boss():
    return AdminFactory(email="boss@example.com")


@pytest.fixture
def load(boss):
    """Return a function that imports a file."""

    def run(kind, text=None, *, is_applied=True, actor=boss):
        text = FILES[kind] if text is None else text
        return import_file(kind=kind, text=text, actor=actor, at=NOW, is_applied=is_applied)

    return run


def counts():
    models = [User, Calendar, OpeningHours, Service, Booking]
    return [model.objects.count() for model in models]


def test_a_business_is_imported_with_four_files(load):
    for kind in FILES:
        report = load(kind)
        assert (report.problems, report.is_applied) == ([], True)
    assert User.objects.get(name="Ben").email == "ben@example.com"
    assert [(each.weekday, each.opens, each.closes) for each in OpeningHours.objects.all()] == [
        *((day, 540, 1080) for day in range(5)),
        (5, 600, 840),
    ]
    found = Booking.objects.order_by("start_time").values_list("start_time", "status")
    assert [*found] == [
        (datetime(2026, 11, 3, 10, tzinfo=UTC), "completed"),
        (datetime(2026, 12, 1, 10, tzinfo=UTC), "confirmed"),
        (datetime(2026, 12, 2, 11, tzinfo=UTC), "cancelled"),
    ]


def test_a_dry_run_stores_nothing_and_says_what_would_happen(load, boss):
    before = counts()
    report = load("customers", is_applied=False)
    assert (report.lines, report.new, report.present, report.is_applied) == (2, 2, 0, False)
    assert counts() == before


def test_an_import_that_is_interrupted_stores_nothing(boss):
    text = "email,name\n" + "".join(f"c{n}@example.com,C\n" for n in range(600))
    steps = import_in_steps(kind="customers", text=text, actor=boss, at=NOW, is_applied=True)
    assert [next(steps), next(steps)] == [(0, 600), (500, 600)]
    assert User.objects.filter(name="C").count() == 500
    # The server does this if the browser closes the connection.
    steps.close()
    assert not User.objects.filter(name="C").exists()


@pytest.mark.django_db(transaction=True)
def test_a_second_import_is_refused_until_the_first_has_ended(load, boss):
    """Otherwise, both would create the calendar.

    They do not see each other's rows, and calendars can have the same name.
    """
    call = {"kind": "calendars", "text": CALENDARS, "actor": boss, "at": NOW}
    first = import_in_steps(**call, is_applied=True)
    assert [next(first), next(first)] == [(0, 1), (1, 1)]
    [second] = at_once([lambda: import_file(**call, is_applied=True)])
    [check] = at_once([lambda: import_file(**call, is_applied=False)])
    assert [*first] == []
    assert Calendar.objects.get().name == "Chair 1"
    assert "Another import is running" in second.error.errors["file"][0]
    assert (check.value.new, check.value.is_applied) == (1, False)
    assert load("calendars").present == 1


def test_an_imported_booking_gets_the_reminders_that_are_due_after_it_was_made(load):
    """Without `booked_at`, the booking counts as made during the import."""
    for kind in ("customers", "calendars", "services"):
        load(kind)
    load(
        "bookings",
        "customer_email,service,start_time,booked_at\n"
        "ana@example.com,Haircut,2026-11-21 11:00,2026-11-01 09:00\n"
        "ana@example.com,Haircut,2026-11-21 12:00,\n"
        "ana@example.com,Haircut,2026-11-23 13:00,\n",
    )
    # A reminder is due 24 hours before the start: for the second booking, before the import.
    for hours, start in ((0, 11), (36, 13)):
        assert send_reminders(at=NOW + timedelta(hours=hours)) == 1
        last = BookingEvent.objects.filter(type="booking.reminded").latest("id")
        assert last.booking.start_time.hour == start


def test_an_imported_booking_counts_as_confirmed_when_it_was_made(load):
    """So the reminder that is due after `booked_at` is sent, whatever the service requires."""
    for kind in ("customers", "calendars", "services"):
        load(kind)
    Service.objects.update(requires_confirmation=True)
    load(
        "bookings",
        "customer_email,service,start_time,booked_at\n"
        "ana@example.com,Haircut,2026-11-21 11:00,2026-11-01 09:00\n"
        "ana@example.com,Haircut,2026-11-21 12:00,\n",
    )
    assert send_reminders(at=NOW) == 1
    assert BookingEvent.objects.get(type="booking.reminded").booking.start_time.hour == 11


def test_importing_a_file_again_adds_nothing(load):
    for kind in FILES:
        load(kind)
    before = counts()
    for kind in FILES:
        report = load(kind)
        assert (report.new, report.present) == (0, report.lines)
    assert counts() == before


def test_wrong_lines_are_named_and_nothing_is_imported(load):
    for kind in ("customers", "calendars", "services"):
        load(kind)
    report = load(
        "bookings",
        BOOKINGS + "\nana@example.com,Haircut,2026-12-01 10:30,\n"
        "zoe@example.com,Haircut,2026-12-03 10:00,\n"
        "ana@example.com,Haircut,tomorrow,\n"
        "ana@example.com,Haircut,2026-12-06 10:00,\n"
        "ana@example.com,Haircut,2026-11-02 10:00,pending\n",
    )
    assert not report.is_applied
    assert not Booking.objects.exists()
    assert [(each.line, each.column) for each in report.problems] == [
        (6, ""),  # The booking overlaps the one in line 2.
        (7, "customer_email"),
        (8, "start_time"),
        (9, ""),  # The chair is closed on this day, a Sunday.
        (10, "status"),
    ]
    assert report.problems[1] == Problem(7, "customer_email", "There is no “zoe@example.com”.")
    assert [each.value for each in report.problems] == ["", "", "tomorrow", "", ""]


def test_an_import_causes_no_emails_and_no_webhook_messages(load):
    for kind in FILES:
        load(kind)
    assert not ProcrastinateJob.objects.exists()


def test_a_price_with_too_many_decimals_is_a_problem_of_its_column(load):
    load("calendars")
    [problem] = load("services", SERVICES.replace("25.00", "25.001")).problems
    assert (problem.line, problem.column) == (2, "price")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "email is missing"),
        ("email\n", "name is missing"),
        ("email,name,shoe_size\n", "shoe_size is unknown"),
        ("email,name,name\n", "occurs twice"),
        ("email,name\n", "has no lines"),
        ("email,name\n\n,\n", "has no lines"),
        ("email,name\na@example.com,A,B\n", "Line 2 cannot be read: it has more cells"),
        ('email,name\na@example.com,A\nb@example.com,"B\n', "Line 3 cannot be read"),
        ('email,name\na@example.com,"A\n' + 20 * "b@example.com,B\n", "Line 2 cannot be read"),
        # The cell is longer than `csv.field_size_limit`, which is 131,072 characters.
        ('email,name\na@example.com,"A\n' + 9000 * "b@example.com,B\n", "Line 2 cannot be read"),
        ('email,name\na@example.com,"A\nb@example.com,"B"\n', "Line 2 cannot be read: a quotation"),
        ('"email,name\na@example.com,A\n', "Line 1 cannot be read"),
        ('sep=;\nemail;"name\n', "Line 2 cannot be read"),
        ('sep="\nemail,name\n', "email is missing"),
        ("sep=\r\nemail,name\r\n", "email is missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(load, text, part):
    with pytest.raises(Invalid) as refusal:
        load("customers", text)
    assert part in refusal.value.errors["file"][0]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_recognised(load, separator):
    assert load("customers", CUSTOMERS.replace(",", separator)).new == 2


def test_a_line_above_the_header_can_name_the_separator(load):
    [problem] = load("customers", "sep=;\r\nemail;name\r\na@example.com;\r\n").problems
    assert (problem.line, problem.column) == (3, "name")


def test_a_problem_after_a_cell_with_several_lines_has_the_line_number_of_the_file(load):
    text = 'title,price,duration_minutes,description\nA,1,30,"One\ntwo"\n\nB,x,30,\n'
    [problem] = load("services", text).problems
    assert (problem.line, problem.column) == (5, "price")


def test_the_apostrophes_that_exports_put_before_formulas_are_removed(load):
    text = "Email,NAME,phone\nana@example.com,'=Ana,'+351 912 345 678\n"
    assert load("customers", text).new == 1
    user = User.objects.get(email="ana@example.com")
    assert (user.name, user.phone) == ("=Ana", "+351 912 345 678")


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("João".encode(), ""),
        ("\ufeffJoão".encode(), ""),
        ("João".encode("utf-16"), ""),
        ("João".encode("cp1252"), "cp1252"),
    ],
)
def test_encodings_are_recognised_or_chosen(content, encoding):
    assert decode(content, encoding) == "João"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("João".encode("cp1252"), "not in this encoding"),
        (b"PK\x03\x04...", "a spreadsheet"),
        (b"x" * (32 * 1024**2 + 1), "larger than 32 MiB"),
    ],
)
def test_a_file_that_cannot_be_decoded_or_is_too_large_is_refused(content, part):
    with pytest.raises(Invalid) as refusal:
        decode(content)
    assert part in refusal.value.errors["file"][0]


@pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "cp1251"])
def test_a_file_in_utf_8_is_not_decoded_as_another_encoding(encoding):
    assert decode(b"email,name", encoding) == "email,name"
    for text in ("João", "Żółć", "Иван Щукин"):
        with pytest.raises(Invalid) as refusal:
            decode(text.encode(), encoding)
        assert "is in UTF-8" in refusal.value.errors["file"][0]


def test_the_examples_are_imported_without_a_problem(load):
    for kind, form in KINDS.items():
        columns = [*form.base_fields]
        out = StringIO()
        rows = csv.DictWriter(out, columns)
        rows.writeheader()
        rows.writerows(form.example)
        report = load(kind, out.getvalue())
        assert (report.new, report.problems) == (2, [])
    # The example says that this booking was made on 21 October.
    assert Booking.objects.get(status="completed").created_at < datetime(2026, 10, 22, tzinfo=UTC)


# --- bookings ---------------------------------------------------------------------------------


@pytest.fixture
def chair(load):
    """Create two customers, and a haircut at a chair in Lisbon that is always open."""
    for kind in ("customers", "calendars", "services"):
        load(kind)
    OpeningHours.objects.all().delete()


def one_booking(start_time, **cells):
    cells = {"customer_email": "ana@example.com", "service": "Haircut", **cells}
    names = ",".join([*cells, "start_time"])
    return f"{names}\n{','.join([*cells.values(), start_time])}\n"


def test_a_time_is_read_in_the_time_zone_of_the_calendar(load, chair):
    load("bookings", one_booking("1.7.2027 9:30"))
    assert Booking.objects.get().start_time == datetime(2027, 7, 1, 8, 30, tzinfo=UTC)


def test_a_time_that_occurs_twice_means_its_first_occurrence(load, chair):
    load("bookings", one_booking("2027-10-31 01:30"))
    assert Booking.objects.get().start_time == datetime(2027, 10, 31, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cells", "column", "part"),
    [
        ({"start_time": "2027-03-28 01:30"}, "start_time", "skip this time"),
        ({"start_time": "2027-02-30 10:00"}, "start_time", "such as"),
        ({"start_time": "12/1/2026 10:00"}, "start_time", "such as"),
        ({"start_time": "1026-12-01 10:00"}, "start_time", "1900 to 2999"),
        ({"status": "completed"}, "status", "has not begun"),
        ({"status": "done"}, "status", "one of these words: confirmed, pending"),
        ({"service": "Shave"}, "service", "There is no “Shave”"),
        ({"calendar": "Chair 2"}, "calendar", "not a service of the calendar"),
        ({"booked_at": "2026-12-01 09:00"}, "booked_at", "in the past"),
        ({"notes": "x" * 2001}, "notes", "at most 2000"),
    ],
)
def test_a_wrong_cell_is_named_with_its_reason(load, chair, cells, column, part):
    cells = {"start_time": "2026-12-01 10:00", **cells}
    [problem] = load("bookings", one_booking(cells.pop("start_time"), **cells)).problems
    assert (problem.line, problem.column) == (2, column)
    assert part in problem.message


def test_a_cancelled_booking_can_have_the_time_of_a_confirmed_booking_above_it(load, chair):
    text = one_booking("2026-12-01 10:00", status="confirmed")
    text += "ben@example.com,Haircut,cancelled,2026-12-01 10:00\n"
    report = load("bookings", text)
    assert (report.new, report.problems) == (2, [])


def test_a_cancelled_and_a_confirmed_booking_of_a_customer_can_have_the_same_time(load, chair):
    text = one_booking("2026-12-01 10:00", status="confirmed")
    text += "ana@example.com,Haircut,cancelled,2026-12-01 10:00\n" * 2
    report = load("bookings", text)
    assert (report.new, report.present, report.problems) == (2, 1, [])
    assert {*Booking.objects.values_list("status", flat=True)} == {"cancelled", "confirmed"}
    assert (load("bookings", text).new, Booking.objects.count()) == (0, 2)


def test_a_cancelled_time_can_be_booked_again_in_another_chunk_of_lines(load, chair, monkeypatch):
    monkeypatch.setattr("bookings.imports.services.CHUNK", 1)
    text = one_booking("2026-12-01 10:00", status="cancelled")
    text += "ben@example.com,Haircut,cancelled,2026-12-01 10:00\n"
    text += "ana@example.com,Haircut,confirmed,2026-12-01 10:00\n" * 2
    report = load("bookings", text)
    assert (report.new, report.present, report.problems) == (3, 1, [])


def test_a_booking_that_was_cancelled_after_the_import_is_not_booked_again(load, chair, boss):
    text = one_booking("2026-12-01 10:00")
    load("bookings", text)
    cancel_booking(booking_id=Booking.objects.get().pk, actor=boss, at=NOW)
    assert load("bookings", text).present == 1
    assert Booking.objects.get().status == "cancelled"


@pytest.mark.parametrize("status", ["", "confirmed"])
def test_a_past_booking_is_completed_by_the_import_and_not_announced(load, chair, status):
    load("bookings", one_booking("2026-11-03 10:00", status=status))
    assert Booking.objects.get().status == "completed"
    assert complete_bookings(at=NOW) == 0
    assert not ProcrastinateJob.objects.exists()


def test_a_pending_booking_needs_a_service_that_requires_confirmation(load, chair):
    text = one_booking("2026-12-01 10:00", status="pending")
    [problem] = load("bookings", text).problems
    assert (problem.column, problem.message) == (
        "status",
        "This service confirms its bookings at once.",
    )
    Service.objects.update(requires_confirmation=True)
    assert load("bookings", text).new == 1
    assert Booking.objects.get().status == "pending"


def test_a_pending_booking_that_has_begun_since_its_import_is_skipped(load, chair, boss):
    Service.objects.update(requires_confirmation=True)
    text = one_booking("2026-12-01 10:00", status="pending")
    assert load("bookings", text).new == 1
    later = NOW + timedelta(days=30)
    again = import_file(kind="bookings", text=text, actor=boss, at=later, is_applied=True)
    assert (again.problems, again.present) == ([], 1)
    text = one_booking("2026-12-01 12:00", status="pending")
    new = import_file(kind="bookings", text=text, actor=boss, at=later, is_applied=True)
    [problem] = new.problems
    assert problem.message == "A booking that has begun cannot be pending."


def test_bookings_of_a_customer_who_was_deactivated_since_their_import_are_skipped(load, chair):
    load("bookings", one_booking("2026-12-01 10:00"))
    User.objects.filter(email="ana@example.com").update(is_active=False)
    again = load("bookings", one_booking("2026-12-01 10:00"))
    assert (again.problems, again.present) == ([], 1)
    [problem] = load("bookings", one_booking("2026-12-01 12:00")).problems
    assert problem == Problem(
        2,
        "customer_email",
        "The account with this email address is not active.",
        "ana@example.com",
    )


def test_a_calendar_whose_provider_was_deactivated_since_its_import_is_skipped(load):
    rui = ProviderFactory(email="rui@example.com")
    text = "name,provider_email\nChair,rui@example.com\n"
    assert load("calendars", text).new == 1
    User.objects.filter(pk=rui.pk).update(is_active=False)
    again = load("calendars", text)
    assert (again.problems, again.present) == ([], 1)


def test_a_line_that_occurs_twice_is_imported_once(load, chair):
    text = one_booking("2026-12-01 10:00")
    report = load("bookings", text + text.splitlines()[1])
    assert (report.new, report.present) == (1, 1)


def test_a_booking_is_attributed_to_the_admin(load, chair, boss):
    load("bookings", one_booking("2026-11-03 10:00", status="completed"))
    assert {event.actor for event in BookingEvent.objects.all()} == {boss}


def test_an_import_stops_after_many_problems(load, boss):
    # Each line has two problems.
    text = "email,name\n" + "x,\n" * (MAX_PROBLEMS + 2)
    report = load("customers", text)
    assert report.is_cut
    assert MAX_PROBLEMS <= len(report.problems) < report.lines * 2


@pytest.mark.one_server("counts statements, and a cluster needs more of them")
def test_a_booking_is_imported_with_at_most_eight_queries(
    load, chair, django_assert_max_num_queries
):
    """Each booking takes a savepoint and the queries of `create_booking`; all else, up to ten."""
    lines = [f"ana@example.com,Haircut,2026-12-{day:02} 10:00" for day in range(1, 21)]
    with django_assert_max_num_queries(20 * 8 + 10):
        report = load("bookings", "customer_email,service,start_time\n" + "\n".join(lines))
    assert report.new == 20


def test_only_admins_import(load):
    with pytest.raises(Forbidden):
        load("customers", actor=UserFactory())


@pytest.mark.parametrize(
    "text",
    [
        "Mon",
        "Mon 9-18",
        "Mon 09:00-10:00-11:00",
        "Mon-Fry 09:00-18:00",
        "Mon 09:00-25:00",
        "x",
    ],
)
def test_opening_hours_that_cannot_be_read_are_quoted(load, text):
    [problem] = load("calendars", f"name,opening_hours\nChair,{text}\n").problems
    assert (problem.line, problem.column) == (2, "opening_hours")
    assert f"“{text}” cannot be read." in problem.message


def test_the_refusal_of_opening_hours_past_sunday_shows_how_to_write_them(load):
    text = "name,opening_hours\nChair,Mon 09:00-18:00; Fri-Mon 09:00-12:00\n"
    [problem] = load("calendars", text).problems
    assert problem.message == (
        "“Fri-Mon 09:00-12:00” goes past the end of the week, which is Sunday. Write, for example: "
        "Fri-Sun 09:00-18:00; Mon 09:00-18:00."
    )


@pytest.mark.parametrize("text", ["Mon 18:00-02:00", "Mon 09:00-09:00"])
def test_opening_hours_that_do_not_close_after_they_open_are_quoted(load, text):
    cell = f"Tue-Fri 09:00-12:30 14:00-18:00; {text}"
    [problem] = load("calendars", f"name,opening_hours\nChair,{cell}\n").problems
    assert (problem.column, problem.value) == ("opening_hours", cell)
    assert problem.message == (
        f"In “{text}”, the closing time must be after the opening time. For hours that continue "
        "after midnight, write, for example: Sat 18:00-24:00; Sun 00:00-02:00."
    )


def test_opening_hours_that_are_written_as_the_refusal_says_are_accepted(load):
    text = "name,opening_hours\nChair,Sat 18:00-24:00; Sun 00:00-02:00\n"
    assert load("calendars", text).problems == []


def test_opening_hours_that_overlap_are_named(load):
    text = "name,opening_hours\nChair,Mon-Fri 09:00-18:00; Fri 17:00-20:00\n"
    [problem] = load("calendars", text).problems
    assert problem.column == "opening_hours"
    assert problem.message == "Two opening hours on Fri overlap at 17:00."


def test_a_customer_cannot_be_the_provider_of_a_calendar(load):
    UserFactory(email="rui@example.com")
    [problem] = load("calendars", "name,provider_email\nChair,rui@example.com\n").problems
    assert (problem.line, problem.column) == (2, "provider_email")


def test_a_price_can_have_a_decimal_comma(load):
    load("services", "title;price;duration_minutes\nCut;25,50;30\n")
    assert Service.objects.get().price == Decimal("25.50")


@pytest.mark.parametrize(
    ("price", "currency", "message"),
    [
        ("1,250", "EUR", "This can mean 1.25 or 1250. Write one of them."),
        ("1.250", "EUR", "This can mean 1.25 or 1250. Write one of them."),
        ("25,000", "", "This can mean 25.00 or 25000. Write one of them."),
        ("1,000", "JPY", "This can mean 1 or 1000. Write one of them."),
    ],
)
def test_a_price_that_may_have_a_thousands_separator_is_refused(load, price, currency, message):
    text = f"title;price;currency;duration_minutes\nCut;{price};{currency};30\n"
    [problem] = load("services", text).problems
    assert (problem.column, problem.message) == ("price", message)


@pytest.mark.parametrize(
    ("price", "currency", "amount"),
    [("1,250", "KWD", "1.25"), ("0,500", "EUR", "0.5"), ("1250,000", "EUR", "1250")],
)
def test_a_price_with_three_decimals_is_read_if_it_is_unambiguous(load, price, currency, amount):
    text = f"title;price;currency;duration_minutes\nCut;{price};{currency};30\n"
    assert load("services", text).problems == []
    assert Service.objects.get().price == Decimal(amount)


def test_midnight_ends_a_day():
    assert opening.parse("sun 00:00-24:00") == [{"weekday": 6, "opens": 0, "closes": 1440}]


def test_the_command_only_checks_the_file_unless_apply_is_given(boss, tmp_path):
    file = tmp_path / "customers.csv"
    file.write_text(CUSTOMERS)

    def run(*more, admin="boss@example.com"):
        out = StringIO()
        call_command(
            "import_csv", "customers", str(file), "--admin", admin, *more, stdout=out, stderr=out
        )
        return out.getvalue()

    assert "2 new, 0 already there. Nothing was imported yet" in run()
    assert "2 new, 0 already there. Imported." in run("--apply")
    assert "0 new, 2 already there. Imported." in run("--apply")
    file.write_bytes("email,name\njo@example.com,João\n".encode("cp1252"))
    with pytest.raises(CommandError, match="not in this encoding"):
        run()
    assert "1 new" in run("--encoding", "cp1252")
    file.write_text("email,name\nnot an address,Ana\n")
    with pytest.raises(CommandError, match=r"1 problem\."):
        run("--apply")
    with pytest.raises(CommandError, match="is not an active admin"):
        run(admin="ana@example.com")


def test_the_command_reports_a_lost_database(tmp_path, boss, monkeypatch):
    def refuse(*args, **options):
        raise InterfaceError("the connection is closed")

    monkeypatch.setattr(KINDS["customers"], "load", refuse)
    file = tmp_path / "customers.csv"
    file.write_text(CUSTOMERS)
    with pytest.raises(CommandError, match=r"the connection is closed\. Check the file again"):
        call_command("import_csv", "customers", str(file), "--admin", boss.email, "--apply")
