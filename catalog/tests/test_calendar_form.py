"""The form of a calendar in the admin site: the weekly grid, time off, and the calendar's zone."""

import html
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from django.urls import reverse

from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.adminsite.tests.crawler import Page
from catalog import services
from catalog.forms import WallClockFormField
from catalog.models import Calendar, OpeningHours, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


@pytest.fixture
def site(client):
    client.force_login(AdminFactory())
    return client


@pytest.fixture
def calendar():
    return CalendarFactory(name="Chair", timezone="Europe/Lisbon")


def page_of(calendar):
    return reverse("admin:catalog_calendar_change", args=[calendar.pk])


def body(calendar, *, hours=(), off=(), stored=0, **fields):
    """Return the form as a browser sends it."""
    sent = {
        "name": calendar.name,
        "timezone": calendar.timezone,
        "provider": "",
        "hours-TOTAL_FORMS": len(hours),
        "hours-INITIAL_FORMS": stored,
        "time_off-TOTAL_FORMS": len(off),
        "time_off-INITIAL_FORMS": sum("id" in row for row in off),
        "time_off-zone": calendar.timezone,
        **fields,
    }
    for prefix, rows in (("hours", hours), ("time_off", off)):
        for number, row in enumerate(rows):
            sent |= {f"{prefix}-{number}-{name}": value for name, value in row.items()}
    return sent


def unchanged(client, path):
    """Return what a browser sends from the page at `path` if nothing is changed."""
    forms = Page(path, client.get(path).content.decode()).forms
    [fields] = [dict(form.fields) for form in forms if "timezone" in dict(form.fields)]
    return fields


def span(weekday, opens, closes, **more):
    return {"weekday": weekday, "opens": opens, "closes": closes, **more}


def period(start_date, start_time, end_date, end_time, **more):
    return {
        "start_time_0": start_date,
        "start_time_1": start_time,
        "end_time_0": end_date,
        "end_time_1": end_time,
        **more,
    }


class TestWeek:
    def stored(self, calendar):
        return [*calendar.hours.values_list("weekday", "opens", "closes")]

    def test_the_page_shows_the_days_of_a_week_with_their_spans(self, site, calendar):
        for opens in (540, 840):
            OpeningHours.objects.create(
                calendar=calendar, weekday=1, opens=opens, closes=opens + 180
            )
        response = site.get(page_of(calendar))
        [hours, _] = response.context["inline_admin_formsets"]
        days = hours.formset.days()
        assert [day.name for day in days] == DAYS
        # Each day has a spare span for browsers without scripts.
        assert [len(day.spans) for day in days] == [1, 3, 1, 1, 1, 1, 1]
        text = response.content.decode()
        assert all(f'id="weekday-{number}">{name}' in text for number, name in enumerate(DAYS))
        assert 'value="09:00"' in text
        assert 'value="17:00"' in text

    def test_spare_spans_without_times_are_ignored(self, site, calendar):
        rows = [span(day, "", "") for day in (6, 5, 4, 3, 2, 1, 0)]
        rows[3] = span(3, "9", "17.30")
        response = site.post(page_of(calendar), body(calendar, hours=rows))
        assert response.status_code == 302
        assert self.stored(calendar) == [(3, 540, 1050)]

    def test_a_script_may_leave_gaps_in_the_numbers_of_the_spans(self, site, calendar):
        sent = body(calendar, hours=[{}, {}, span(2, "9:00", "12:00")])
        assert site.post(page_of(calendar), sent).status_code == 302
        assert self.stored(calendar) == [(2, 540, 720)]

    def test_unchanged_hours_keep_their_rows(self, site, calendar):
        stored = OpeningHours.objects.create(calendar=calendar, weekday=1, opens=540, closes=600)
        sent = body(calendar, hours=[span(1, "9", "10")], stored=1) | {"name": "Stool"}
        assert site.post(page_of(calendar), sent).status_code == 302
        assert OpeningHours.objects.get() == stored

    def test_hours_that_somebody_else_has_changed_are_not_lost(self, site, calendar):
        def seen():
            text = site.get(page_of(calendar)).content.decode()
            return re.search(r'name="hours-shown" value="([^"]*)"', text)[1]

        before = seen()
        services.set_opening_hours(
            calendar=calendar, spans=[{"weekday": 1, "opens": 540, "closes": 720}]
        )
        mine = body(calendar, hours=[span(4, "10", "12")]) | {"hours-shown": before}
        response = site.post(page_of(calendar), mine)
        text = response.content.decode()
        assert "Somebody else has changed the opening hours" in text
        assert "The stored hours are now: Tue 09:00-12:00." in text
        assert 'value="10"' in text
        assert self.stored(calendar) == [(1, 540, 720)]
        # Once the page has shown the other person's hours, these hours can be replaced.
        assert site.post(page_of(calendar), mine | {"hours-shown": seen()}).status_code == 302
        assert self.stored(calendar) == [(4, 600, 720)]

    def test_saving_another_field_does_not_undo_changes_of_the_hours(self, site, calendar):
        old = body(calendar, name="Stool") | {"hours-shown": ""}
        services.set_opening_hours(
            calendar=calendar, spans=[{"weekday": 1, "opens": 540, "closes": 720}]
        )
        assert site.post(page_of(calendar), old).status_code == 302
        assert self.stored(calendar) == [(1, 540, 720)]
        assert Calendar.objects.get().name == "Stool"

    def test_correcting_another_field_does_not_undo_changes_of_the_hours(self, site, calendar):
        old = body(calendar, name="") | {"hours-shown": ""}
        services.set_opening_hours(
            calendar=calendar, spans=[{"weekday": 1, "opens": 540, "closes": 720}]
        )
        text = site.post(page_of(calendar), old).content.decode()
        assert "This field is required." in text
        shown = re.search(r'name="hours-shown" value="([^"]*)"', text)[1]
        corrected = old | {"name": "Stool", "hours-shown": shown}
        assert site.post(page_of(calendar), corrected).status_code == 302
        assert self.stored(calendar) == [(1, 540, 720)]
        assert Calendar.objects.get().name == "Stool"

    def test_hours_that_change_while_the_form_is_saved_are_noticed(
        self, site, calendar, monkeypatch
    ):
        lock = services.lock_calendar

        def lock_late(**which):
            services.set_opening_hours(
                calendar=calendar, spans=[{"weekday": 1, "opens": 540, "closes": 720}]
            )
            return lock(**which)

        monkeypatch.setattr("catalog.admin.services.lock_calendar", lock_late)
        mine = body(calendar, hours=[span(4, "10", "12")]) | {"hours-shown": ""}
        response = site.post(page_of(calendar), mine)
        assert "Somebody else has changed the opening hours" in response.content.decode()

    @pytest.mark.parametrize(
        ("opens", "closes", "stored"),
        [("0", "24", (0, 1440)), ("00:00", "24:00", (0, 1440)), ("23:59", "24", (1439, 1440))],
    )
    def test_hours_can_begin_and_end_at_midnight(self, site, calendar, opens, closes, stored):
        sent = body(calendar, hours=[span(6, opens, closes), span(0, "0", "2")])
        assert site.post(page_of(calendar), sent).status_code == 302
        assert self.stored(calendar) == [(0, 0, 120), (6, *stored)]

    def test_the_form_explains_how_to_enter_hours_past_midnight(self, site, calendar):
        sent = body(calendar, hours=[span(5, "18:00", "02:00")])
        text = site.post(page_of(calendar), sent).content.decode()
        assert "close at 24:00 and open at 0:00 on the next day" in text
        assert 'value="02:00"' in text

    @pytest.mark.parametrize("weekday", ["", "7", "-1", "x", "\0", "9" * 400])
    def test_a_weekday_that_does_not_exist_is_refused(self, site, calendar, weekday):
        sent = body(calendar, hours=[span(weekday, "9", "10")])
        assert site.post(page_of(calendar), sent).status_code == 200
        assert self.stored(calendar) == []

    def test_hundreds_of_spans_are_refused_without_a_server_error(self, site, calendar):
        rows = [span(1, "9", "10")] * 300
        response = site.post(page_of(calendar), body(calendar, hours=rows))
        assert "The opening hours of Tuesday overlap." in response.content.decode()
        for total in ("1000000", "x", ""):
            sent = body(calendar) | {"hours-TOTAL_FORMS": total}
            assert site.post(page_of(calendar), sent).status_code == 200
        assert self.stored(calendar) == []

    @pytest.mark.parametrize("change", [{"opens": "", "closes": ""}, {"DELETE": "on"}])
    def test_a_day_is_closed_by_clearing_or_deleting_its_span(self, site, calendar, change):
        OpeningHours.objects.create(calendar=calendar, weekday=1, opens=540, closes=600)
        row = {**span(1, "09:00", "10:00"), **change}
        sent = body(calendar, hours=[row], stored=1)
        assert site.post(page_of(calendar), sent).status_code == 302
        assert self.stored(calendar) == []
        assert (
            "Tue 09:00-10:00"
            in site.get(
                reverse("admin:catalog_calendar_history", args=[calendar.pk])
            ).content.decode()
        )

    def test_an_incomplete_or_overlapping_span_is_refused_at_the_span(self, site, calendar):
        rows = [span(0, "9", ""), span(1, "9", "12"), span(1, "11", "13")]
        response = site.post(page_of(calendar), body(calendar, hours=rows))
        [hours, _] = response.context["inline_admin_formsets"]
        assert [form.errors.as_data().keys() for form in hours.formset] == [
            {"closes"},
            set(),
            {"__all__"},
        ]
        text = response.content.decode()
        assert "Give both times" in text
        assert "The opening hours of Tuesday overlap." in text
        assert self.stored(calendar) == []

    @pytest.mark.parametrize(
        ("text", "minutes"),
        [
            *[("9", 540), ("09", 540), ("9:30", 570), ("9.30", 570), ("930", 570), ("0930", 570)],
            *[("5pm", 1020), ("5:30 PM", 1050), ("12am", 0), ("12 pm", 720), ("24:00", 1440)],
            *[("24", 1440), ("17h15", 1035), (" 8 ", 480), ("0", 0)],
        ],
    )
    def test_times_are_understood_as_people_write_them(self, text, minutes):
        field = WallClockFormField()
        assert field.to_python(text) == minutes
        assert not field.has_changed(minutes, text)

    @pytest.mark.parametrize("text", ["25", "24:30", "9:60", "13pm", "0am", "half past nine", "\0"])
    def test_a_text_that_is_not_a_time_of_day_is_refused(self, site, calendar, text):
        sent = body(calendar, hours=[span(0, text, "23:00")])
        response = site.post(page_of(calendar), sent)
        assert "Must be a time of day" in response.content.decode()

    def test_saving_with_only_the_permission_to_change_keeps_the_week(self, client, calendar):
        OpeningHours.objects.create(calendar=calendar, weekday=1, opens=540, closes=600)
        client.force_login(staff(["catalog.change_calendar"]))
        sent = unchanged(client, page_of(calendar)) | {"name": "Stool"}
        assert client.post(page_of(calendar), sent).status_code == 302
        assert self.stored(calendar) == [(1, 540, 600)]

    def test_people_who_may_only_see_calendars_read_the_week(self, client, calendar):
        OpeningHours.objects.create(calendar=calendar, weekday=1, opens=540, closes=600)
        TimeOffFactory(calendar=calendar, reason="Fair")
        client.force_login(staff(["catalog.view_calendar"]))
        text = client.get(page_of(calendar)).content.decode()
        assert "<p>09:00-10:00</p>" in text
        assert text.count("<p>Closed</p>") == 6
        assert "Thu 1 Aug 2999, 01:00 to Fri 2 Aug 2999, 01:00: Fair" in " ".join(text.split())
        assert 'name="hours-0-opens"' not in text


class TestZone:
    def test_zones_are_chosen_from_a_list(self, site, calendar):
        text = site.get(page_of(calendar)).content.decode()
        assert '<optgroup label="Europe">' in text
        assert '<option value="Europe/Lisbon" selected>Lisbon</option>' in text
        assert '<option value="America/Argentina/Buenos_Aires">Argentina/Buenos Aires' in text
        user = reverse("admin:accounts_user_change", args=[UserFactory().pk])
        assert '<option value="UTC" selected>UTC</option>' in site.get(user).content.decode()

    def test_a_zone_that_is_not_in_the_list_is_refused(self, site, calendar):
        response = site.post(page_of(calendar), body(calendar, timezone="Mars/Olympus"))
        assert "Select a valid choice." in response.content.decode()

    def test_the_page_names_the_zone_of_its_times(self, site, calendar):
        text = site.get(page_of(calendar)).content.decode()
        assert text.count("<strong>Europe/Lisbon</strong>, where it is now") == 2


class TestTimeOff:
    def test_times_are_in_the_zone_of_the_calendar(self, site, calendar):
        row = period("2999-08-01", "10:00", "2999-08-02", "12:30", reason="Fair")
        assert site.post(page_of(calendar), body(calendar, off=[row])).status_code == 302
        stored = calendar.time_off.get()
        assert stored.start_time == datetime(2999, 8, 1, 9, tzinfo=UTC)
        assert stored.end_time == datetime(2999, 8, 2, 11, 30, tzinfo=UTC)
        text = site.get(page_of(calendar)).content.decode()
        assert 'value="10:00:00"' in text
        assert 'value="12:30:00"' in text

    def test_whole_days_need_no_times(self, site, calendar):
        row = period("2999-08-01", "", "2999-08-14", "")
        assert site.post(page_of(calendar), body(calendar, off=[row])).status_code == 302
        stored = calendar.time_off.get()
        assert stored.start_time == datetime(2999, 7, 31, 23, tzinfo=UTC)
        assert stored.end_time == datetime(2999, 8, 14, 23, tzinfo=UTC)
        [_, off] = site.get(page_of(calendar)).context["inline_admin_formsets"]
        shown = [off.formset[0][name].value() for name in ("start_time", "end_time")]
        assert [(str(day), clock) for day, clock in shown] == [
            ("2999-08-01", None),
            ("2999-08-14", None),
        ]

    def test_a_change_of_zone_leaves_time_off_at_its_instant(self, site, calendar):
        """The page shows the old zone, so the times that people enter are in the old zone."""
        stored = TimeOffFactory(calendar=calendar)
        before = (stored.start_time, stored.end_time)
        row = period("2999-08-01", "01:00", "2999-08-02", "01:00", id=stored.pk, reason="Fair")
        sent = body(calendar, off=[row]) | {"timezone": "Asia/Tokyo"}
        assert site.post(page_of(calendar), sent).status_code == 302
        stored.refresh_from_db()
        assert (stored.start_time, stored.end_time, stored.reason) == (*before, "Fair")
        assert Calendar.objects.get().timezone == "Asia/Tokyo"

    def test_time_off_that_somebody_has_deleted_is_explained_in_its_row(self, site, calendar):
        stored = TimeOffFactory(calendar=calendar)
        row = period("2999-08-01", "01:00", "2999-08-02", "01:00", id=stored.pk, reason="Fair")
        sent = body(calendar, off=[row], name="Stool")
        stored.delete()
        response = site.post(page_of(calendar), sent)
        assert response.status_code == 200
        text = response.content.decode()
        assert "This time off has ended, or somebody has deleted it." in text
        assert 'value="Fair"' in text
        assert site.post(page_of(calendar), sent | {"time_off-0-DELETE": "on"}).status_code == 302
        assert Calendar.objects.get().name == "Stool"

    @pytest.mark.parametrize(
        ("start", "stored"),
        [
            # On 31 March 2999, the clocks of Lisbon go from 1:00 to 2:00. The time 2:00 is stored.
            (("2999-03-31", "01:30"), datetime(2999, 3, 31, 1, tzinfo=UTC)),
            # On 27 October 2999, the clocks of Lisbon show 1:30 twice. The first 1:30 is stored.
            (("2999-10-27", "01:30"), datetime(2999, 10, 27, 0, 30, tzinfo=UTC)),
        ],
    )
    def test_a_time_that_the_clocks_skip_or_repeat_can_be_entered(
        self, site, calendar, start, stored
    ):
        row = period(*start, "2999-12-01", "")
        assert site.post(page_of(calendar), body(calendar, off=[row])).status_code == 302
        assert calendar.time_off.get().start_time == stored

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"start_time_0": ""}, "Enter a date."),
            ({"start_time_0": "31.02.2999"}, "Enter a valid date."),
            ({"start_time_1": "25:00"}, "Enter a valid time."),
            ({"end_time_0": "2999-07-01"}, "The end must be after the start."),
            ({"end_time_0": "2999-08-01", "end_time_1": "10:00"}, "The end must be after"),
            ({"reason": "x" * 201}, "at most 200 characters"),
            ({"reason": "a\0b"}, "Null characters are not allowed."),
            ({"start_time_0": "2900-01-01"}, "Time off can last at most 10 years."),
        ],
    )
    def test_each_mistake_is_shown_in_its_row_and_keeps_the_input(
        self, site, calendar, change, words
    ):
        row = period("2999-08-01", "10:00", "2999-08-02", "12:30", reason="Fair") | change
        response = site.post(page_of(calendar), body(calendar, off=[row], name="New"))
        assert response.status_code == 200
        [_, off] = response.context["inline_admin_formsets"]
        assert words in str(off.formset.forms[0].errors)
        text = html.unescape(response.content.decode())
        assert all(value in text for value in (*row.values(), "New") if "\0" not in value)
        assert not TimeOff.objects.exists()

    @pytest.mark.parametrize("year", ["0001", "1899", "3000", "9999"])
    def test_a_date_outside_the_years_1900_to_2999_is_refused(self, site, calendar, year):
        row = period(f"{year}-01-01", "00:00", f"{year}-12-31", "23:00")
        response = site.post(page_of(calendar), body(calendar, off=[row]))
        assert "Must be in the years 1900 to 2999." in response.content.decode()
        assert not TimeOff.objects.exists()


class TestAffectedBookings:
    @pytest.fixture
    def bookings(self, calendar):
        service = ServiceFactory(calendar=calendar, title="Cut", capacity=9)
        return [
            BookingFactory(
                service=service,
                seat=seat,
                start_time=TUESDAY + timedelta(minutes=seat),
                user=UserFactory(name=f"Ada {seat}"),
            )
            for seat in range(1, 8)
        ]

    off = period("2999-01-01", "", "2999-01-01", "")

    def query(self, **more):
        return {**self.off, "zone": "Europe/Lisbon", **more}

    def preview(self, calendar):
        return reverse("admin:catalog_calendar_affected", args=[calendar.pk])

    def test_nothing_is_saved_before_the_bookings_are_shown(self, site, calendar, bookings):
        response = site.post(page_of(calendar), body(calendar, off=[self.off], name="New"))
        text = response.content.decode()
        assert response.status_code == 200
        assert "7 bookings are in this time:" in text
        assert "Tue 1 Jan 2999, 10:01 · Cut · Ada 1" in text
        assert text.count("· Cut · Ada") == 5
        assert "and 2 more" in text
        assert "Nothing is saved yet." in text
        assert reverse("admin:bookings_booking_change", args=[bookings[0].pk]) in text
        calendar.refresh_from_db()
        assert (calendar.name, calendar.time_off.count()) == ("Chair", 0)

    def test_time_off_is_saved_if_people_close_the_calendar_anyway(self, site, calendar, bookings):
        sent = body(calendar, off=[{**self.off, "keep": "on"}])
        assert site.post(page_of(calendar), sent).status_code == 302
        assert calendar.time_off.count() == 1

    def test_time_off_whose_period_is_unchanged_is_saved_at_once(self, site, calendar, bookings):
        stored = TimeOffFactory(
            calendar=calendar, start_time=datetime(2999, 1, 1, tzinfo=UTC), reason=""
        )
        row = {**self.off, "id": stored.pk, "reason": "Fair"}
        assert site.post(page_of(calendar), body(calendar, off=[row])).status_code == 302
        assert calendar.time_off.get().reason == "Fair"

    def test_the_bookings_are_shown_while_the_period_is_entered(
        self, site, calendar, bookings, django_assert_max_num_queries
    ):
        with django_assert_max_num_queries(9):
            text = site.get(self.preview(calendar), self.query()).content.decode()
        assert "7 bookings are in this time:" in text
        assert "Ada 1" in text
        free = self.query(start_time_1="12:00", end_time_1="13:00")
        assert "bookings are" not in site.get(self.preview(calendar), free).content.decode()

    @pytest.mark.parametrize(
        "change",
        [
            *({"start_time_0": ""}, {"start_time_0": "0001-01-01"}, {"end_time_0": "x\0"}),
            *({"zone": "Mars"}, {"zone": "\0"}, {"end_time_0": "2998-01-01"}),
        ],
    )
    def test_unfinished_or_invalid_input_is_no_error(self, site, calendar, bookings, change):
        response = site.get(self.preview(calendar), self.query(**change))
        assert response.status_code == 200

    def test_only_people_who_may_see_bookings_see_customers(self, client, calendar, bookings):
        client.force_login(staff(["catalog.change_calendar"]))
        text = client.get(self.preview(calendar), self.query()).content.decode()
        assert "Tue 1 Jan 2999, 10:01 · Cut" in text
        assert "Ada" not in text
        assert "/admin/bookings/" not in text

    def test_only_people_who_may_close_the_calendar_see_the_bookings(self, client, calendar):
        client.force_login(staff(["catalog.view_calendar", "bookings.view_booking"]))
        assert client.get(self.preview(calendar), self.query()).status_code == 403
        client.force_login(UserFactory())
        assert client.get(self.preview(calendar), self.query()).status_code == 302

    def test_a_calendar_that_does_not_exist_is_not_found(self, site, calendar):
        path = self.preview(calendar)
        Calendar.objects.all().delete()
        assert site.get(path, self.query()).status_code == 404


class TestMuchTimeOff:
    NOTE = "40 periods are shown at a time."

    @pytest.fixture
    def periods(self, calendar):
        """Store an hour off on each of a hundred days, and return the start times."""
        starts = [TUESDAY + timedelta(days=number) for number in range(100)]
        TimeOff.objects.bulk_create(
            TimeOff(calendar=calendar, start_time=start, end_time=start + timedelta(hours=1))
            for start in starts
        )
        return starts

    def links(self, response):
        """Return the parameters of the links to other periods, by their texts."""
        pattern = r'href="\?([^"#]*)#time_off-heading">[^<]*(Earlier|Later)'
        found = re.findall(pattern, response.content.decode())
        return {text: dict(parse_qsl(html.unescape(query))) for query, text in found}

    def test_a_calendar_with_much_time_off_and_many_hours_can_be_saved(
        self, site, calendar, periods
    ):
        OpeningHours.objects.bulk_create(
            OpeningHours(calendar=calendar, weekday=day, opens=opens, closes=opens + 30)
            for day in range(7)
            for opens in range(0, 14 * 60, 60)
        )
        sent = unchanged(site, page_of(calendar))
        response = site.post(page_of(calendar), sent | {"name": "Stool"})
        assert response.status_code == 302
        calendar.refresh_from_db()
        assert calendar.name == "Stool"
        assert [*calendar.time_off.values_list("start_time", flat=True)] == periods
        assert calendar.hours.count() == 98

    def test_the_page_shows_the_next_periods_and_says_that_there_are_more(
        self, site, calendar, periods
    ):
        response = site.get(page_of(calendar))
        [_, off] = response.context["inline_admin_formsets"]
        shown = [form.instance.start_time for form in off.formset.initial_forms]
        assert shown == periods[:40]
        assert self.NOTE in response.content.decode()
        calendar.time_off.filter(start_time__in=periods[40:]).delete()
        assert self.NOTE not in site.get(page_of(calendar)).content.decode()

    def test_a_shown_period_can_be_changed_after_earlier_ones_were_added(
        self, site, calendar, periods
    ):
        sent = unchanged(site, page_of(calendar))
        TimeOffFactory(calendar=calendar, start_time=TUESDAY - timedelta(days=7))
        sent |= {"time_off-39-reason": "Fair", "name": ""}
        response = site.post(page_of(calendar), sent)
        assert response.status_code == 200
        assert self.NOTE in response.content.decode()
        assert site.post(page_of(calendar), sent | {"name": "Stool"}).status_code == 302
        assert calendar.time_off.get(reason="Fair").start_time == periods[39]
        assert calendar.time_off.count() == 101

    def test_a_period_of_a_later_page_can_be_changed(self, site, calendar, periods):
        path = page_of(calendar) + "?time_off=3"
        sent = unchanged(site, path) | {"time_off-19-reason": "Fair"}
        response = site.post(path, sent | {"name": ""})
        assert response.status_code == 200
        assert self.links(response) == {"Earlier": {"time_off": "2"}}
        assert site.post(path, sent).status_code == 302
        assert calendar.time_off.get(reason="Fair").start_time == periods[-1]
        assert calendar.time_off.count() == 100

    @pytest.mark.parametrize("permission", ["view_calendar", "change_calendar"])
    def test_links_lead_to_all_periods_and_keep_the_other_parameters(
        self, client, calendar, periods, permission
    ):
        client.force_login(staff([f"catalog.{permission}"]))
        parameters, shown = {"_popup": "1"}, []
        while parameters is not None:
            assert parameters["_popup"] == "1"
            response = client.get(page_of(calendar), parameters)
            [_, off] = response.context["inline_admin_formsets"]
            shown += [form.instance.start_time for form in off.formset.initial_forms]
            parameters = self.links(response).get("Later")
        assert shown == periods
        assert self.links(response) == {"Earlier": {"_popup": "1", "time_off": "2"}}

    @pytest.mark.parametrize("page", ["", "0", "-1", "x", "1.5", "99999"])
    def test_an_invalid_page_number_shows_the_first_page(self, site, calendar, periods, page):
        response = site.get(page_of(calendar), {"time_off": page})
        assert self.links(response) == {"Later": {"time_off": "2"}}
