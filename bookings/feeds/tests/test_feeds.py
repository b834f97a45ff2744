"""Calendar files and feeds, which two independent libraries read back."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import icalendar
import pytest
import time_machine
import vobject  # type: ignore[import-untyped]
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import assume, example, given
from hypothesis import strategies as st

from accounts.extensions import ON_NEW_OWNER
from accounts.models import User
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import ical
from bookings.feeds import services
from bookings.feeds.models import Feed
from bookings.feeds.services import MAX_ENTRIES, signer
from bookings.models import Booking, Slot
from bookings.tests.factories import BookingFactory, SlotFactory
from bookit.tests.expect import problem
from catalog.tests.factories import CalendarFactory, ServiceFactory

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
START = datetime(2026, 12, 1, 10, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

database = pytest.mark.django_db


@pytest.fixture(autouse=True)
def frozen():
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def ana():
    return UserFactory(name="Ana Silva", email="ana@example.com")


@pytest.fixture
def helena():
    return ProviderFactory(name="Helena Costa", email="helena@example.com")


@pytest.fixture
def calendar(helena):
    return CalendarFactory(name="Helena's chair", provider=helena)


@pytest.fixture
def haircut(calendar):
    return ServiceFactory(title="Haircut", calendar=calendar, capacity=2)


def own_url(api, user):
    return api.as_(user).get("/me/calendar").json()["address"]


def urls(api, user, calendar):
    """Return the URL that shows only busy times, and the URL that shows names."""
    response = api.as_(user).get(f"/calendars/{calendar.pk}/feed")
    assert response.status_code == 200, response.content
    return response.json()["address"], response.json()["address_with_names"]


def read(response):
    """Return the events of a response, and check that both libraries read the same events."""
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "text/calendar; charset=utf-8"
    assert_valid(response.content)
    found = icalendar.Calendar.from_ical(response.content)
    events = found.walk("VEVENT")
    other = vobject.readOne(response.content.decode())
    others = other.contents.get("vevent", [])
    assert [each.uid.value for each in others] == [event["UID"] for event in events]
    assert [each.dtstart.value for each in others] == [event["DTSTART"].dt for event in events]
    assert [each.summary.value for each in others] == [event["SUMMARY"] for event in events]
    assert other.serialize()  # raises if a component lacks a required property
    return events


def assert_valid(content):
    """Check the rules of RFC 5545 that strict parsers enforce."""
    assert content.endswith(b"END:VCALENDAR\r\n")
    lines = content.removesuffix(b"\r\n").split(b"\r\n")
    for line in lines:
        assert len(line) <= 75
        assert b"\n" not in line
        assert b"\r" not in line
        line.decode()  # raises if a line break splits a character
    assert lines[:3] == [b"BEGIN:VCALENDAR", b"VERSION:2.0", b"PRODID:-//BookIt//BookIt//EN"]
    assert sum(line.startswith((b"BEGIN:VEVENT", b"BEGIN:VTIMEZONE")) for line in lines) >= 1


def summaries(response):
    return [str(event["SUMMARY"]) for event in read(response)]


# --- a booking --------------------------------------------------------------------------------


@database
class TestFile:
    def test_a_booking_can_be_downloaded(self, api, ana, haircut):
        booking = BookingFactory(
            user=ana, service=haircut, start_time=START, status="confirmed", updated_at=NOW
        )
        response = api.as_(ana).get(f"/bookings/{booking.pk}.ics")
        [event] = read(response)
        assert (event["UID"], event["SUMMARY"]) == (str(booking.pk), "Haircut")
        assert (event["DTSTART"].dt, event["DTEND"].dt) == (START, START + HOUR)
        assert event["DTSTAMP"].dt == NOW
        assert event["STATUS"] == "CONFIRMED"
        assert "Helena's chair" in event["DESCRIPTION"]
        assert icalendar.Calendar.from_ical(response.content)["METHOD"] == "PUBLISH"

    @pytest.mark.parametrize(
        ("status", "shown"),
        [
            ("held", "TENTATIVE"),
            ("pending", "TENTATIVE"),
            ("confirmed", "CONFIRMED"),
            ("completed", "CONFIRMED"),
            ("no_show", "CONFIRMED"),
            ("cancelled", "CANCELLED"),
            ("expired", "CANCELLED"),
        ],
    )
    def test_the_file_shows_the_status_of_the_booking(self, api, ana, status, shown):
        booking = BookingFactory(user=ana, status=status)
        [event] = read(api.as_(ana).get(f"/bookings/{booking.pk}.ics"))
        assert event["STATUS"] == shown

    def test_changing_a_booking_increments_its_sequence(self, api, ana, haircut):
        client = api.as_(ana)
        made = client.post(
            "/bookings", {"service_id": str(haircut.pk), "start_time": START.isoformat()}
        ).json()["id"]
        [before] = read(client.get(f"/bookings/{made}.ics"))
        client.patch(f"/bookings/{made}", {"start_time": (START + DAY).isoformat()})
        [after] = read(client.get(f"/bookings/{made}.ics"))
        assert (before["UID"], before["SEQUENCE"]) == (after["UID"], 0)
        assert after["SEQUENCE"] == 1
        assert after["DTSTART"].dt == START + DAY

    def test_the_file_of_an_unknown_booking_is_not_found(self, api, ana):
        problem(api.as_(ana).get(f"/bookings/{uuid4()}.ics"), 404, "not_found")

    @pytest.mark.parametrize("accept", ["application/json", "text/html", "nonsense", ""])
    def test_the_file_is_sent_whatever_the_client_accepts(self, api, ana, accept):
        booking, client = BookingFactory(user=ana), api.as_(ana)
        own = client.get("/me/calendar").json()["address"]
        for path in (f"/bookings/{booking.pk}.ics", own):
            response = client.get(path, headers={"accept": accept})
            assert (response.status_code, response["Content-Type"]) == (
                200,
                "text/calendar; charset=utf-8",
            )
        problem(client.get(f"{own}x", headers={"accept": accept}), 404, "not_found")

    def test_an_unchanged_file_returns_304(self, api, ana):
        booking = BookingFactory(user=ana)
        client = api.as_(ana)
        etag = client.get(f"/bookings/{booking.pk}.ics")["ETag"]
        for known in (etag, f'W/{etag}, "other"', "*"):
            response = client.get(f"/bookings/{booking.pk}.ics", headers={"if-none-match": known})
            assert (response.status_code, response.content) == (304, b"")
            assert response["ETag"] == etag
        booking.status = "confirmed"
        booking.save()
        changed = client.get(f"/bookings/{booking.pk}.ics", headers={"if-none-match": etag})
        assert changed.status_code == 200
        assert changed["ETag"] != etag

    def test_head_returns_only_the_headers(self, api, ana):
        booking = BookingFactory(user=ana)
        whole = api.as_(ana).get(f"/bookings/{booking.pk}.ics")
        head = api.as_(ana).head(f"/bookings/{booking.pk}.ics")
        assert (head.status_code, head.content) == (200, b"")
        assert head["ETag"] == whole["ETag"]


# --- the feed of a user ---------------------------------------------------------------------------


@database
class TestOwn:
    def test_a_client_reads_the_feed_without_signing_in(self, api, ana, haircut):
        url = own_url(api, ana)
        assert url.startswith("http://testserver/me/calendar.ics?token=")
        BookingFactory(user=ana, service=haircut, start_time=START)
        BookingFactory(service=haircut, start_time=START, seat=2)
        assert summaries(api.get(url)) == ["Haircut"]

    def test_an_empty_feed_is_valid(self, api, ana):
        assert read(api.get(own_url(api, ana))) == []

    def test_the_feed_leaves_out_holds_and_cancelled_and_expired_bookings(self, api, ana):
        for number, status in enumerate(Booking.Status.values):
            BookingFactory(
                user=ana,
                status=status,
                service__title=status,
                start_time=START + number * HOUR,
            )
        shown = summaries(api.get(own_url(api, ana)))
        assert shown == ["pending", "confirmed", "completed", "no_show"]

    @pytest.mark.parametrize(
        ("most", "days"),
        [
            (MAX_ENTRIES, [-89, -29, -6, 0, 2, 4]),
            (7, [-89, -29, -6, 0, 2, 4]),
            # If the maximum is reached, there can be more entries, so the feed goes back less far.
            (6, [-29, -6, 0, 2, 4]),
            (5, [-6, 0, 2, 4]),
            (4, [0, 2, 4]),
            (2, [0, 2]),
        ],
    )
    def test_a_feed_with_too_many_entries_leaves_out_the_past_first(
        self, api, ana, helena, haircut, monkeypatch, most, days
    ):
        assert MAX_ENTRIES == 5000  # The descriptions of the endpoints contain this number.
        monkeypatch.setattr(services, "MAX_ENTRIES", most)
        for each in (-91, -89, -29, -6, 0, 2, 4):
            BookingFactory(user=ana, service=haircut, start_time=NOW + each * DAY)
        busy = api.as_(helena).get(f"/calendars/{haircut.calendar_id}/feed").json()["address"]
        for url in (own_url(api, ana), busy):
            shown = [event["DTSTART"].dt for event in read(api.get(url))]
            assert shown == [NOW + each * DAY for each in days]

    def test_the_etag_of_a_feed_changes_only_with_its_bookings(self, api, ana):
        booking = BookingFactory(user=ana, start_time=START)
        url = own_url(api, ana)
        first = api.get(url)
        with time_machine.travel(NOW + HOUR):
            again = api.get(url, headers={"if-none-match": first["ETag"]})
        assert again.status_code == 304
        Booking.objects.filter(pk=booking.pk).update(status="confirmed")
        assert api.get(url, headers={"if-none-match": first["ETag"]}).status_code == 200

    def test_renewing_the_url_makes_earlier_urls_invalid(self, api, ana):
        first = own_url(api, ana)
        assert own_url(api, ana) == first
        assert not Feed.objects.exists(), "reading the URL wrote to the database"
        for _ in range(2):
            renewed = api.as_(ana).post("/me/calendar")
            assert renewed.status_code == 200
            second = renewed.json()["address"]
            assert second == own_url(api, ana) != first
            problem(api.get(first), 404, "not_found")
            assert api.get(second).status_code == 200
            first = second

    def test_the_feed_of_a_deactivated_account_is_not_found(self, api, ana):
        url = own_url(api, ana)
        User.objects.update(is_active=False)
        problem(api.get(url), 404, "not_found")

    @pytest.mark.parametrize(
        "token",
        [
            *("", "x", ".", "..", "é", "a" * 5000),
            "WyJvd24iXQ.x",  # `["own"]` with a wrong signature
            *("{valid}x", "x{valid}", "{cut}"),
        ],
    )
    def test_a_feed_with_an_invalid_token_is_not_found(self, api, ana, token):
        valid = own_url(api, ana).partition("token=")[2]
        query = {"token": token.format(valid=valid, cut=valid[:-1])}
        problem(api.get("/me/calendar.ics", query), 404, "not_found")

    def test_a_feed_without_a_token_is_not_found(self, api):
        problem(api.get("/me/calendar.ics"), 404, "not_found")

    @pytest.mark.one_server("counts statements, and a cluster needs more of them")
    def test_a_feed_takes_three_queries_for_any_number_of_entries(self, api, ana, haircut):
        url = own_url(api, ana)

        def count():
            with CaptureQueriesContext(connection) as queries:
                api.get(url)
            return len(queries)

        BookingFactory(user=ana, service=haircut, start_time=START)
        before = count()
        for number in range(1, 20):
            BookingFactory(user=ana, start_time=START + number * HOUR)
        assert count() == before == 3


# --- a calendar's feed ------------------------------------------------------------------------


@database
class TestCalendar:
    @pytest.fixture
    def booked(self, ana, haircut, calendar):
        BookingFactory(
            user=ana, service=haircut, start_time=START, notes="Short", status="confirmed"
        )
        BookingFactory(service=haircut, start_time=START, seat=2, attendee_name="Rui")
        yoga = ServiceFactory(title="Yoga", calendar=calendar, mode="slots", capacity=12)
        slot = SlotFactory(service=yoga, start_time=START + DAY)
        for seat, name in ((1, "Eva"), (2, "Max")):
            BookingFactory(
                service=yoga, slot=slot, start_time=START + DAY, seat=seat, attendee_name=name
            )
        SlotFactory(service=yoga, start_time=START + 2 * DAY)
        SlotFactory(service=yoga, start_time=START + 3 * DAY, status="cancelled")
        BookingFactory(service=haircut, start_time=START + 4 * DAY, status="cancelled")
        BookingFactory(service=haircut, start_time=START + 5 * DAY, status="held")

    def test_the_url_without_names_shows_only_when_the_calendar_is_busy(
        self, api, helena, calendar, booked
    ):
        busy, _ = urls(api, helena, calendar)
        response = api.get(busy)
        events = read(response)
        assert [event["DTSTART"].dt for event in events] == [
            *(START, START),
            *(START + DAY, START + 2 * DAY),
        ]
        assert {str(event["SUMMARY"]) for event in events} == {"Busy"}
        for event in events:
            assert set(event) == {"UID", "DTSTAMP", "DTSTART", "DTEND", "SUMMARY", "STATUS"}
        for word in ("Ana", "Rui", "Eva", "Haircut", "Yoga", "Short", "example.com"):
            assert word.encode() not in response.content

    def test_the_url_with_names_shows_the_attendees(self, api, helena, calendar, booked):
        _, names = urls(api, helena, calendar)
        events = read(api.get(names))
        assert [str(event["SUMMARY"]) for event in events] == [
            *("Haircut: Ana Silva", "Haircut: Rui"),
            *("Yoga (2 of 12)", "Yoga (0 of 12)"),
        ]
        assert [str(event["STATUS"]) for event in events][:2] == ["CONFIRMED", "TENTATIVE"]
        assert events[2]["DESCRIPTION"] == "Eva\nMax"

    def test_an_admin_has_their_own_url_with_names(self, api, helena, calendar, booked):
        busy, names = urls(api, AdminFactory(), calendar)
        helenas = urls(api, helena, calendar)
        assert busy == helenas[0]
        assert names != helenas[1]
        assert summaries(api.get(names)) == summaries(api.get(helenas[1]))

    def test_renewing_the_urls_makes_earlier_urls_invalid(self, api, helena, calendar):
        before = urls(api, helena, calendar)
        renewed = api.as_(helena).post(f"/calendars/{calendar.pk}/feed").json()
        after = urls(api, helena, calendar)
        assert tuple(renewed.values()) == after
        for url in before:
            problem(api.get(url), 404, "not_found")
        for url in after:
            assert api.get(url).status_code == 200

    def test_a_url_with_names_becomes_invalid_when_the_readers_account_gets_a_new_owner(
        self, api, helena, calendar, booked
    ):
        busy, names = urls(api, helena, calendar)
        assert not Feed.objects.exists(), "reading the URLs wrote to the database"
        with transaction.atomic():
            for end_access in ON_NEW_OWNER.values():
                end_access(owner=helena)
        problem(api.get(names), 404, "not_found")
        assert api.get(busy).status_code == 200
        same_busy, other_names = urls(api, helena, calendar)
        assert same_busy == busy
        assert other_names != names
        assert summaries(api.get(other_names))[0] == "Haircut: Ana Silva"

    def test_renewing_the_feed_of_a_user_ends_only_that_users_url_with_names(
        self, api, helena, calendar
    ):
        _, of_admin = urls(api, AdminFactory(), calendar)
        _, names = urls(api, helena, calendar)
        api.as_(helena).post("/me/calendar")
        problem(api.get(names), 404, "not_found")
        assert api.get(of_admin).status_code == 200

    def test_a_url_with_names_that_was_never_renewed_stays_valid(self, api, helena, calendar):
        """Older tokens, which do not contain the version of the reader's own feed, must stay valid.

        Therefore, a token contains this version only after the reader has renewed that feed.
        """
        content = ["names-for", str(calendar.pk), 0, str(helena.pk)]
        token = signer.sign_object(content)
        _, names = urls(api, helena, calendar)
        assert names.endswith(f"?token={token}")
        assert api.get(names).status_code == 200

    def test_an_erased_customer_is_shown_as_a_former_user(self, api, helena, calendar, booked):
        Booking.objects.filter(attendee_name__in=["", "Eva"]).update(attendee_name="")
        User.objects.exclude(pk=helena.pk).update(name="")
        _, names = urls(api, helena, calendar)
        events = read(api.get(names))
        assert str(events[0]["SUMMARY"]) == "Haircut: a former user"
        assert events[2]["DESCRIPTION"] == "a former user\nMax"

    def test_the_timestamp_of_a_slots_entry_is_the_time_of_its_last_change(
        self, api, helena, calendar, booked
    ):
        _, names = urls(api, helena, calendar)
        rows = Slot.objects.filter(start_time=START + 2 * DAY)
        rows.update(capacity=20, created_at=datetime(2020, 1, 1, tzinfo=UTC))
        entry = read(api.get(names))[3]
        assert str(entry["SUMMARY"]) == "Yoga (0 of 20)"
        slot = rows.get()
        assert entry["DTSTAMP"].dt == slot.updated_at.replace(microsecond=0)
        # A change of a booking in the slot also changes the entry.
        later = datetime(2999, 1, 1, tzinfo=UTC)
        BookingFactory(
            service=slot.service, slot=slot, start_time=slot.start_time, updated_at=later
        )
        assert read(api.get(names))[3]["DTSTAMP"].dt == later

    def test_the_previous_provider_of_a_calendar_sees_no_names(self, api, helena, calendar):
        busy, names = urls(api, helena, calendar)
        calendar.provider = ProviderFactory()
        calendar.save()
        problem(api.get(names), 404, "not_found")
        assert api.get(busy).status_code == 200

    @pytest.mark.parametrize("change", [{"is_active": False}, {"role": "user"}])
    def test_a_deactivated_or_demoted_provider_sees_no_names(self, api, helena, calendar, change):
        busy, names = urls(api, helena, calendar)
        User.objects.filter(pk=helena.pk).update(**change)
        problem(api.get(names), 404, "not_found")
        assert api.get(busy).status_code == 200

    @pytest.mark.parametrize("has_provider", [True, False])
    @pytest.mark.parametrize(
        "change", [{"is_active": False}, {"role": "user"}, {"role": "provider"}]
    )
    def test_a_deactivated_or_demoted_admin_sees_no_names(
        self, api, calendar, booked, change, has_provider
    ):
        if not has_provider:
            calendar.provider = None
            calendar.save()
        admin = AdminFactory()
        busy, names = urls(api, admin, calendar)
        assert summaries(api.get(names))[0] == "Haircut: Ana Silva"
        User.objects.filter(pk=admin.pk).update(**change)
        problem(api.get(names), 404, "not_found")
        assert api.get(busy).status_code == 200

    def test_the_provider_still_sees_names_after_an_admin_is_demoted(self, api, helena, calendar):
        admin = AdminFactory()
        _, names = urls(api, helena, calendar)
        _, of_admin = urls(api, admin, calendar)
        User.objects.filter(pk=admin.pk).update(role="user")
        problem(api.get(of_admin), 404, "not_found")
        assert api.get(names).status_code == 200

    def test_a_token_is_valid_only_for_its_own_feed(self, api, ana, helena, calendar):
        other = CalendarFactory(provider=helena)
        own = own_url(api, ana).partition("?")[2]
        for query in (own, *(each.partition("?")[2] for each in urls(api, helena, calendar))):
            problem(api.get(f"/calendars/{other.pk}.ics?{query}"), 404, "not_found")
            problem(api.get(f"/calendars/{uuid4()}.ics?{query}"), 404, "not_found")
            wrong = f"/calendars/{calendar.pk}.ics" if query == own else "/me/calendar.ics"
            problem(api.get(f"{wrong}?{query}"), 404, "not_found")

    def test_changing_a_booking_changes_the_etag_of_the_feed(self, api, helena, calendar, booked):
        _, names = urls(api, helena, calendar)
        etag = api.get(names)["ETag"]
        assert api.get(names, headers={"if-none-match": etag}).status_code == 304
        Booking.objects.filter(attendee_name="Max").update(status="cancelled")
        assert api.get(names, headers={"if-none-match": etag}).status_code == 200

    def test_a_feed_takes_the_same_number_of_queries_for_any_number_of_entries(
        self, api, helena, calendar, haircut
    ):
        for url, expected in zip(urls(api, helena, calendar), (3, 4), strict=True):
            found = []
            for _ in range(3):
                BookingFactory(service=haircut, start_time=START + Booking.objects.count() * DAY)
                with CaptureQueriesContext(connection) as queries:
                    api.get(url)
                found.append(len(queries))
            assert found == [expected] * 3


# --- the format -------------------------------------------------------------------------------


@database
def test_text_that_users_wrote_does_not_break_the_calendar(api, ana, helena, calendar, haircut):
    haircut.title = 'Cut\r\nEND:VEVENT\r\n;,\\:"\x07' + "ü" * 100
    haircut.save()
    calendar.name = "Chair\r\nBEGIN:VEVENT\u2028x"
    calendar.save()
    BookingFactory(
        user=ana, service=haircut, start_time=START, attendee_name="Eva\nATTENDEE:mailto:x@y.z"
    )
    for url in (own_url(api, ana), *urls(api, helena, calendar)):
        [event] = read(api.get(url))
        assert "ATTENDEE" not in event
    [event] = read(api.get(own_url(api, ana)))
    assert event["SUMMARY"] == 'Cut\nEND:VEVENT\n;,\\:" ' + "ü" * 100


@pytest.mark.parametrize(
    "address",
    ["o'brien@example.com", "ana+bookings@example.com", "a!$*_-~.b@example.com"],
)
def test_programs_that_do_not_decode_addresses_read_the_address_as_it_is(address):
    party = ical.Party("Pat O'Brien", address)
    entry = ical.Entry(uuid4(), START, START + HOUR, NOW, "Cut", organizer=party, attendee=party)
    content = ical.CalendarFile([entry], method="REQUEST").text().encode()
    assert_valid(content)
    [event] = icalendar.Calendar.from_ical(content).walk("VEVENT")
    assert event["ATTENDEE"] == event["ORGANIZER"] == f"mailto:{address}"
    [other] = vobject.readOne(content.decode()).vevent_list
    assert other.attendee.value == other.organizer.value == f"mailto:{address}"


def test_characters_that_a_mailto_url_cannot_contain_are_encoded():
    entry = ical.Entry(
        uuid4(), START, START + HOUR, NOW, "Cut", attendee=ical.Party("", "a%b&c/d=e@example.com")
    )
    content = ical.CalendarFile([entry], method="REQUEST").text().encode()
    [event] = icalendar.Calendar.from_ical(content).walk("VEVENT")
    assert event["ATTENDEE"] == "mailto:a%25b%26c%2Fd%3De@example.com"


def test_a_backslash_before_an_n_is_no_line_break():
    entry = ical.Entry(
        uuid4(), START, START + HOUR, NOW, r"C:\New\notes", description=r"C:\New\notes"
    )
    content = ical.CalendarFile([entry], name=r"C:\New\notes").text()
    for name in ("X-WR-CALNAME", "SUMMARY", "DESCRIPTION"):
        assert rf"{name}:C:\\New\\notes" in content


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
)
@example("", "Ana\\")
def test_any_text_is_read_back_and_every_line_is_short(text, name):
    entry = ical.Entry(
        uuid4(),
        START,
        START + HOUR,
        NOW,
        summary=text,
        organizer=ical.Party(name, "a@example.com"),
        attendee=ical.Party(name, "b@example.com"),
    )
    content = ical.CalendarFile([entry], method="REQUEST", name=text).text().encode()
    assert_valid(content)
    [event] = icalendar.Calendar.from_ical(content).walk("VEVENT")
    assert event["ATTENDEE"] == "mailto:b@example.com"
    assert event["ORGANIZER"] == "mailto:a@example.com"
    [other] = vobject.readOne(content.decode()).vevent_list
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    assert other.summary.value == ical.CONTROLS.sub(" ", plain)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.none() | st.integers(0, 50),
    st.booleans(),
)
def test_an_entry_is_written_as_icalendar_writes_it(summary, description, sequence, has_parties):
    assume(r"\N" not in summary + description)  # icalendar writes it as a line break.
    party = ical.Party("Ana, B.", "a b@example.com")
    entry = ical.Entry(
        uuid4(),
        START,
        START + HOUR,
        NOW,
        summary=summary,
        description=description,
        sequence=sequence,
        organizer=party if has_parties else None,
        attendee=party if has_parties else None,
    )
    event = icalendar.Event()
    event.add("uid", str(entry.uid))
    event.add("dtstamp", NOW)
    event.add("dtstart", START)
    event.add("dtend", START + HOUR)
    event.add("summary", ical._clean(summary))
    event.add("status", "CONFIRMED")
    if sequence is not None:
        event.add("sequence", sequence)
    if description:
        event.add("description", ical._clean(description))
    if has_parties:
        address = "mailto:a%20b@example.com"
        answer = {"partstat": "ACCEPTED", "rsvp": "FALSE"}
        event.add("organizer", address, parameters={"cn": "Ana, B."})
        event.add("attendee", address, parameters={"cn": "Ana, B.", **answer})
    assert ical._written(entry) == event.to_ical().decode()
