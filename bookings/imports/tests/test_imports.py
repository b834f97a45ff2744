"""Imports from CSV: dry runs, all or nothing, repeatable, with a reason for each wrong line."""

from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.models import User
from accounts.tests.factories import AdminFactory, UserFactory
from bookings.imports import opening
from bookings.imports.services import Problem, import_file
from bookings.models import Booking
from bookit.errors import Forbidden, Invalid
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
        return import_file(
            kind=kind, text=text or FILES[kind], actor=actor, at=NOW, is_applied=is_applied
        )

    return run


def counts():
    models = [User, Calendar, OpeningHours, Service, Booking]
    return [model.objects.count() for model in models]


def test_a_business_moves_in_with_four_files(load):
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


def test_a_file_can_be_imported_again(load):
    for kind in FILES:
        load(kind)
    before = counts()
    for kind in FILES:
        report = load(kind)
        assert (report.new, report.present) == (0, report.lines)
    assert counts() == before


def test_one_wrong_line_keeps_all_lines_out_and_is_named(load):
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
        (6, ""),
        (7, "customer_email"),
        (8, "start_time"),
        (9, ""),
        (10, "status"),
    ]
    assert report.problems[1] == Problem(7, "customer_email", "There is no “zoe@example.com”.")


def test_nobody_gets_an_email_or_a_webhook_message(load):
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
        ("email,name\na@example.com,A,B\n", "Line 2 has more cells"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(load, boss, text, part):
    with pytest.raises(Invalid) as refusal:
        import_file(kind="customers", text=text, actor=boss, at=NOW, is_applied=True)
    assert part in refusal.value.errors["file"][0]


def test_spreadsheets_with_semicolons_and_a_byte_order_mark_are_read(load):
    assert load("customers", "\ufeff" + CUSTOMERS.replace(",", ";")).new == 2


def test_only_admins_import(load):
    with pytest.raises(Forbidden):
        load("customers", actor=UserFactory())


@pytest.mark.parametrize(
    "text", ["Mon", "Mon 9-18", "Fri-Mon 09:00-18:00", "Mon 18:00-09:00", "Mon 09:00-25:00", "x"]
)
def test_opening_hours_that_cannot_be_read_are_quoted(load, text):
    [problem] = load("calendars", f"name,opening_hours\nChair,{text}\n").problems
    assert (problem.line, problem.column) == (2, "opening_hours")
    assert f"“{text}”" in problem.message


def test_midnight_ends_a_day():
    assert opening.parse("sun 00:00-24:00") == [{"weekday": 6, "opens": 0, "closes": 1440}]


def test_the_command_checks_first_and_imports_if_told(boss, tmp_path):
    file = tmp_path / "customers.csv"
    file.write_text(CUSTOMERS)

    def run(*more, admin="boss@example.com"):
        out = StringIO()
        call_command(
            "import_csv", "customers", str(file), "--admin", admin, *more, stdout=out, stderr=out
        )
        return out.getvalue()

    assert "2 new, 0 imported before. Nothing was imported yet" in run()
    assert "2 new, 0 imported before. Imported." in run("--apply")
    assert "0 new, 2 imported before. Imported." in run("--apply")
    file.write_text("email,name\nnot an address,Ana\n")
    with pytest.raises(CommandError, match="1 problems"):
        run("--apply")
    with pytest.raises(CommandError, match="is not an active admin"):
        run(admin="ana@example.com")
