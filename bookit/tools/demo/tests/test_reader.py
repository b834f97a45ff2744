"""The files of the demo town are read completely, and every mistake in them is explained."""

import re
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from io import StringIO
from shutil import copytree
from unittest.mock import patch

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError

from accounts.models import User
from bookings.models import Booking
from bookings.slots.services import SlotConflict
from bookit.errors import Invalid
from bookit.tools.demo import entries
from bookit.tools.demo.entries import Entry, TownError
from bookit.tools.demo.fill import fill_with_demo
from bookit.tools.demo.reader import PORTO_CLARO, read_town
from bookit.tools.management.commands import seed_demo
from catalog.models import Calendar

SATURDAY = datetime(2026, 11, 21, 9, 40, tzinfo=UTC)
RUI = "businesses/01-barbearia-do-rui.toml"
YOGA = "businesses/03-mare-yoga.toml"
BARBER = f"{RUI}, calendars 1 (Barbearia do Rui)"
HAIRCUT = f"{BARBER}, services 1 (Classic Haircut)"
PHOTOS = "businesses/08-sofia-lindgren.toml"
PHOTOGRAPHER = f"{PHOTOS}, calendars 1 (Sofia Lindgren Photography)"
VINYASA = f"{YOGA}, calendars 1 (Maré Yoga, Sea Hall), services 1 (Vinyasa Yoga)"


@pytest.fixture
def changed(tmp_path):
    """Return a function that copies the files, replaces text in a copy, and returns the folder."""

    def change(name, old, new):
        directory = copytree(PORTO_CLARO, tmp_path / "town")
        path = directory / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return directory

    return change


def mistake_in(directory):
    with pytest.raises(TownError) as error:
        read_town(directory)
    return str(error.value)


def test_the_files_are_found_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(read_town().businesses) == len(list((PORTO_CLARO / "businesses").iterdir())) == 16


def test_read_town_returns_the_values_of_the_files():
    town = read_town()
    [barber] = town.businesses[0].calendars
    assert (barber.name, barber.demand, barber.regulars) == ("Barbearia do Rui", 0.42, 29)
    assert barber.spans[:2] == ((1, 540, 780), (1, 870, 1140))
    assert barber.spans[-1] == (5, 540, 960)
    assert barber.reviews[0].rating == 5
    assert barber.services[0].columns == {
        "title": "Classic Haircut",
        "category": "Barber",
        "price": 16,
        "duration_minutes": 30,
        "description": barber.services[0].description,
        "cancellation_notice_minutes": 120,
    }
    assert town.accounts[1] == ("user", "ana@example.com", "morning-by-the-sea")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("town.toml", "seed = 1755", "seed = ", "town.toml: This is not valid TOML: "),
        ("town.toml", "seed = 1755", "", "town.toml: The key seed is missing."),
        (
            "town.toml",
            "seed = 1755",
            'seed = "1755"',
            "town.toml, seed: Write a whole number here.",
        ),
        ("town.toml", "seed = 1755", "seed = true", "town.toml, seed: Write a whole number here."),
        ("town.toml", "Europe/Lisbon", "Europe/Porto Claro", "town.toml, timezone: 'Europe/Porto"),
        ("town.toml", '"EUR"', '"EURO"', "town.toml: currency: "),
        (
            "town.toml",
            "12-25",
            "25-12",
            'town.toml, holidays 2: Write a month and a day, such as "',
        ),
        (
            "town.toml",
            "12-25",
            "W01-1",
            'town.toml, holidays 2: Write a month and a day, such as "',
        ),
        (
            "town.toml",
            "rui@example.com",
            "rui@example.org",
            "town.toml: shown_accounts: Nobody has the address rui@example.org.",
        ),
        (
            "town.toml",
            "\n[passwords]",
            "\npasswords = 1\n[p]",
            "town.toml: Unknown key p. The keys are",
        ),
        (
            "people.toml",
            "Catarina Lopes",
            "Ana",
            "people.toml: More than one user has the address ana@example.com.",
        ),
        (
            "people.toml",
            '"Barro, ',
            '"Bairro, ',
            "people.toml, main_customer: regular_at: No calendar has the name \"Bairro, Graça's",
        ),
        ("people.toml", "Bruno Teixeira", "王伟", "people.toml: No email address can be derived"),
        (
            "people.toml",
            "ana@example.com",
            "ana",
            "people.toml, main_customer: email: Enter a valid",
        ),
        (
            "people.toml",
            "ana@example.com",
            "Ana@Example.com",
            "people.toml, main_customer: email: Write this address as ana@example.com.",
        ),
        (RUI, "rui@example.com", "RUI@example.com", f"{RUI}: email: Write this address as rui@ex"),
        (
            RUI,
            "regulars = 29",
            "regulars = 30",
            f"{BARBER}: regulars must be a number from 0 to 29.",
        ),
        (RUI, "demand = 0.42", "demand = 42", f"{BARBER}: demand must be a number from 0 to 1."),
        (
            RUI,
            "Tue Wed Thu Fri 09:00",
            "Tue Wed Thu Fry 09:00",
            f'{BARBER}, opening_hours 1: "Fry" is not a span of time, such as "09:00-13:00".',
        ),
        (
            RUI,
            "Tue Wed Thu Fri 09:00",
            "Tuesday 09:00",
            f"{BARBER}, opening_hours 1: Write weekdays (Mon Tue Wed Thu Fri Sat Sun) and times",
        ),
        (
            RUI,
            "13:00 14:30",
            "13:00 14:60",
            f"{BARBER}, opening_hours 1: Must be a time of day from",
        ),
        (
            RUI,
            "09:00-16:00",
            "16:00-09:00",
            f'{BARBER}, opening_hours 2: "16:00-09:00" must end after',
        ),
        (RUI, "opening_hours = [", "opening_hours = []\nx = [", f"{BARBER}: Unknown key x."),
        (RUI, "rating = 5", "rating = 6", f"{BARBER}, reviews 1: rating: Value 6 is not a valid"),
        (RUI, 'price = "16.00"', "", f"{HAIRCUT}: The key price is missing."),
        (RUI, 'price = "16.00"', "price = 16.00", f"{HAIRCUT}, price: Write text in quotes here."),
        (RUI, 'price = "16.00"', 'price = "€16"', f"{HAIRCUT}, price: Write an amount in quotes"),
        (
            RUI,
            'price = "16.00"',
            'price = "-16"',
            f"{HAIRCUT}: price: Ensure this value is greater",
        ),
        (RUI, "duration_minutes = 30", "duration_minutes = 0", f"{HAIRCUT}: duration_minutes: "),
        (RUI, "share = 4", "share = 0", f"{HAIRCUT}: share must be at least 1."),
        (RUI, "share = 4", "shares = 4", f"{HAIRCUT}: Unknown key shares. The keys are: title, "),
        (RUI, "share = 4", 'reviews = "Good"', f"{HAIRCUT}, reviews: Write a list here, in [squ"),
        (RUI, "share = 4", 'reviews = ["Good"]', f"{HAIRCUT}, reviews 1: Write a table here"),
        (RUI, "share = 4", "next_session_full = true", f"{HAIRCUT}: next_session_full needs mode"),
        (RUI, "share = 4", 'mode = "slots"', f'{HAIRCUT}: mode = "slots" needs sessions.'),
        (YOGA, 'mode = "slots"', 'mode = "slot"', f"{VINYASA}: mode: Value 'slot' is not a valid"),
        (
            PHOTOS,
            'ends = "Sun 24:00"',
            'ends = "Mon 00:00"',
            f"{PHOTOGRAPHER}, time_off 1: It must end after it starts, in the same week.",
        ),
    ],
)
def test_the_message_about_a_mistake_names_the_file_and_the_entry(changed, name, old, new, message):
    assert mistake_in(changed(name, old, new)).startswith(message)


@pytest.mark.parametrize(
    "hours", ["[]", '["Mon Tue Wed Thu Fri Sat Sun 00:00-24:00"]'], ids=["none", "all week"]
)
def test_a_calendar_that_never_opens_or_never_closes_is_refused(changed, hours):
    name = "businesses/07-teresa-valente.toml"
    # This call only copies the files. The hours span several lines, so `re.sub` replaces them.
    path = changed(name, "opening_hours", "opening_hours") / name
    text = re.sub(
        r"opening_hours = \[.*?\]", f"opening_hours = {hours}", path.read_text(), flags=re.DOTALL
    )
    path.write_text(text)
    assert "must not be empty, nor cover the whole week" in mistake_in(path.parents[1])


def test_a_missing_file_is_named(tmp_path):
    assert mistake_in(tmp_path).startswith("town.toml: This file is missing from ")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "old", "new", "source", "cause"),
    [
        (RUI, '"16.00"', '"16.005"', HAIRCUT, Invalid),
        (RUI, '"Sat 09:00', '"Sat 08:00-10:00 09:00', BARBER, IntegrityError),
        (YOGA, '"Fri 07:30"', '"Mon 08:00"', VINYASA, SlotConflict),
    ],
    ids=["a price with three decimals", "overlapping hours", "overlapping slots"],
)
def test_an_entry_that_bookit_refuses_to_store_is_named(changed, name, old, new, source, cause):
    town = read_town(changed(name, old, new))
    with pytest.raises(TownError) as error:
        fill_with_demo(town, at=SATURDAY, say=lambda line: None)
    assert str(error.value).startswith(f"{source}: ")
    assert isinstance(error.value.__cause__, cause)


@pytest.mark.django_db
def test_a_new_file_adds_a_business(changed):
    name = "businesses/14-artur-penedo.toml"
    path = changed(name, "artur@example.com", "lidia@example.com") / name
    text = path.read_text().replace("Artur Penedo", "Lídia Prata")
    # Restore the file of the existing business, and store the changed text as a new file.
    copytree(PORTO_CLARO, path.parents[1], dirs_exist_ok=True)
    path.with_name("17-lidia-prata.toml").write_text(text)
    fill_with_demo(read_town(path.parents[1]), at=SATURDAY, say=lambda line: None)
    [calendar] = Calendar.objects.filter(provider__email="lidia@example.com")
    assert calendar.name == "Lídia Prata, tax adviser"
    assert calendar.bookings.count() > 10
    usual = sum(len(business.calendars) for business in read_town().businesses)
    assert Calendar.objects.count() == usual + 1


@pytest.mark.django_db
def test_an_inactive_service_has_no_bookings(changed):
    town = read_town(changed(RUI, "share = 4", "share = 4\nis_active = false"))
    fill_with_demo(town, at=SATURDAY, say=lambda line: None)
    booked = {booking.service.title for booking in Booking.objects.select_related("service")}
    assert "Classic Haircut" not in booked
    assert "Haircut and Beard Trim" in booked


@pytest.mark.django_db
def test_the_command_fails_with_the_message_about_the_mistake(changed):
    directory = changed("town.toml", "seed = 1755", "")
    with (
        patch.object(seed_demo, "read_town", lambda: read_town(directory)),
        pytest.raises(CommandError, match=r"^town\.toml: The key seed is missing\.$"),
    ):
        call_command("seed_demo", stdout=StringIO())
    assert not User.objects.exists()


def test_the_readme_explains_every_key():
    explained = set(re.findall(r"`(\w+)`", (PORTO_CLARO / "README.md").read_text()))
    kinds = [
        kind for kind in vars(entries).values() if is_dataclass(kind) and issubclass(kind, Entry)
    ]
    assert len(kinds) == 11
    # `source` is not a key. The other names are tables, which the README writes in brackets.
    keys = {field.name for kind in kinds for field in fields(kind)} - {
        *("source", "passwords", "admin", "main_customer", "calendars", "services")
    }
    assert len(keys) > 40
    assert keys <= explained
