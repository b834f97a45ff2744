"""Examples of searches for free times. `test_availability_properties` adds random searches."""

import gc
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from unittest.mock import patch
from urllib.parse import urlencode

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.availability import search
from bookings.availability.grids import periods
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.tests.expect import problem
from catalog.models import OpeningHours, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
ONE_DAY = "from=2999-01-01&to=2999-01-01"


def opened(*spans, tz="UTC", provider=None):
    """Return a calendar with these opening hours.

    Args:
        spans: `(opens, closes)` for each day of the week, or `(weekdays, opens, closes)`.
    """
    calendar = CalendarFactory(timezone=tz, provider=provider)
    for span in spans:
        weekdays, opens, closes = span if len(span) == 3 else (range(7), *span)
        for weekday in weekdays:
            OpeningHours.objects.create(
                calendar=calendar, weekday=weekday, opens=opens * 60, closes=closes * 60
            )
    return calendar


@pytest.fixture
def client(api):
    return api.as_(UserFactory())


@pytest.fixture
def times(api):
    """Return a function that returns the free starts of a service, by default as `HH:MM`."""

    def find(service, query=ONE_DAY, part=slice(11, 16)):
        response = api.get(f"/services/{service.pk}/availability?{query}")
        assert response.status_code == 200, response.content
        return [time["start_time"][part] for time in response.json()["times"]]

    return find


class TestGrid:
    def test_starts_are_one_duration_apart_and_begin_at_the_opening(self, times):
        service = ServiceFactory(calendar=opened((9, 12)), duration_minutes=45)
        assert times(service) == ["09:00", "09:45", "10:30", "11:15"]

    def test_a_service_can_set_its_own_step(self, times):
        service = ServiceFactory(calendar=opened((9, 11)), duration_minutes=60, step_minutes=20)
        assert times(service) == ["09:00", "09:20", "09:40", "10:00"]

    def test_each_span_of_a_day_has_its_own_grid(self, times):
        service = ServiceFactory(calendar=opened((9, 11), (13, 15)), duration_minutes=50)
        assert times(service) == ["09:00", "09:50", "13:00", "13:50"]

    def test_a_span_that_ends_at_midnight_continues_on_the_next_day(self, times):
        service = ServiceFactory(calendar=opened((22, 24), (0, 2)), duration_minutes=80)
        assert times(service) == ["00:40", "22:00", "23:20"]
        assert times(service, "from=2999-01-01T23:00:00Z&to=2999-01-02T06:00:00Z") == [
            *("23:20", "00:40"),
        ]

    def test_the_grid_of_a_calendar_that_never_closes_restarts_at_midnight(self, times):
        service = ServiceFactory(duration_minutes=7 * 60)
        assert times(service) == ["00:00", "07:00", "14:00", "21:00"]
        by_hours = ServiceFactory(calendar=opened((0, 24)), duration_minutes=7 * 60)
        assert times(by_hours) == times(service)

    def test_opening_hours_are_in_the_calendars_zone(self, times):
        service = ServiceFactory(calendar=opened((9, 11), tz="Asia/Kathmandu"))
        assert times(service) == ["03:15", "04:15"]

    def test_times_are_in_the_requested_zone(self, api):
        service = ServiceFactory(calendar=opened((9, 10), tz="Asia/Kathmandu"))
        path = f"/services/{service.pk}/availability?{ONE_DAY}&tz=Asia/Tokyo"
        response = api.get(path).json()
        assert response == {
            "service_id": str(service.pk),
            "timezone": "Asia/Tokyo",
            "times": [
                {
                    "start_time": "2999-01-01T12:15:00+09:00",
                    "end_time": "2999-01-01T13:15:00+09:00",
                    "seats_left": 1,
                    "slot_id": None,
                }
            ],
        }
        assert api.get(f"/services/{service.pk}/availability").json()["timezone"] == "UTC"

    @pytest.mark.parametrize(
        ("tz", "day", "expected"),
        [
            # The clocks change from 01:00 to 02:00, and back from 02:00 to 01:00.
            ("Europe/Lisbon", "2027-03-28", ["00:00", "02:00", "03:00"]),
            ("Europe/Lisbon", "2027-10-31", ["00:00", "01:00", "01:00", "02:00", "03:00"]),
            # The clocks change by half an hour: from 02:00 to 02:30, and back from 02:00 to 01:30.
            ("Australia/Lord_Howe", "2026-10-04", ["00:00", "01:00", "02:30"]),
            ("Australia/Lord_Howe", "2027-04-04", ["00:00", "01:00", "01:30", "02:30"]),
            # The clocks change at midnight, so the day begins at 01:00.
            ("America/Havana", "2027-03-14", ["01:00", "02:00", "03:00"]),
        ],
    )
    def test_opening_hours_follow_changes_of_the_clock(self, times, tz, day, expected):
        service = ServiceFactory(calendar=opened((0, 4), tz=tz))
        with time_machine.travel(datetime(2026, 9, 1, tzinfo=UTC)):
            assert times(service, f"from={day}&to={day}&tz={tz}") == expected

    def test_a_day_that_the_zone_skipped_has_no_times(self, times):
        service = ServiceFactory(calendar=opened((9, 10), tz="Pacific/Apia"))
        with time_machine.travel(datetime(2011, 12, 1, tzinfo=UTC)):
            found = times(
                service, "from=2011-12-29&to=2011-12-31&tz=Pacific/Apia", part=slice(0, 16)
            )
        assert found == ["2011-12-29T09:00", "2011-12-31T09:00"]

    def test_two_weeks_are_one_opening_period_if_the_zone_skips_the_closed_day(self, times):
        """Apia skipped Friday, 30 December 2011.

        All times of the period depend on its beginning, even more than a week later.
        """
        all_days_except_friday = ([0, 1, 2, 3, 5, 6], 0, 24)
        service = ServiceFactory(
            calendar=opened(all_days_except_friday, tz="Pacific/Apia"), duration_minutes=1000
        )
        with time_machine.travel(datetime(2011, 12, 1, tzinfo=UTC)):
            found = times(service, "from=2011-12-24&to=2012-01-04", part=slice(0, 16))
            assert found
            assert times(service, "from=2012-01-04&to=2012-01-04", part=slice(0, 16)) == found[-1:]


class TestRules:
    def test_time_off_is_not_offered(self, times):
        service = ServiceFactory(calendar=opened((9, 14)))
        TimeOff.objects.create(
            calendar=service.calendar,
            start_time=TUESDAY + HOUR / 2,
            end_time=TUESDAY + 2 * HOUR,
        )
        assert times(service) == ["09:00", "12:00", "13:00"]

    def test_times_that_overlap_a_booking_or_its_buffers_are_not_offered(self, times):
        service = ServiceFactory(
            calendar=opened((8, 14)),
            duration_minutes=30,
            buffer_before_minutes=10,
            buffer_after_minutes=20,
        )
        BookingFactory(service=service)  # Blocks 9:50 to 10:50.
        assert times(service) == [
            *("08:00", "08:30", "09:00", "11:00", "11:30", "12:00", "12:30", "13:00", "13:30"),
        ]

    def test_a_calendar_hosts_one_service_at_a_time(self, times):
        service = ServiceFactory(calendar=opened((9, 13)), capacity=5)
        BookingFactory(service=ServiceFactory(calendar=service.calendar))
        assert times(service) == ["09:00", "11:00", "12:00"]

    def test_seats_left_are_counted(self, api):
        service = ServiceFactory(calendar=opened((9, 12)), capacity=3)
        for seat in (1, 3):
            BookingFactory(service=service, seat=seat)
        for seat in (1, 2, 3):
            BookingFactory(service=service, seat=seat, start_time=TUESDAY + HOUR)
        response = api.get(f"/services/{service.pk}/availability?{ONE_DAY}").json()
        assert [(t["start_time"][11:16], t["seats_left"]) for t in response["times"]] == [
            ("09:00", 3),
            ("10:00", 1),
        ]

    def test_a_time_that_overlaps_two_bookings_of_a_seat_loses_one_seat(self, api):
        service = ServiceFactory(calendar=opened((9, 12)), capacity=2, step_minutes=45)
        for start in (TUESDAY - HOUR, TUESDAY + HOUR / 2):
            BookingFactory(service=service, seat=1, start_time=start)
        response = api.get(f"/services/{service.pk}/availability?{ONE_DAY}").json()
        assert [(t["start_time"][11:16], t["seats_left"]) for t in response["times"]] == [
            ("09:00", 1),
            ("09:45", 1),
            ("10:30", 1),
        ]

    def test_only_times_between_notice_and_horizon_are_offered(self, times):
        service = ServiceFactory(min_notice_minutes=120, max_advance_days=1)
        with time_machine.travel(TUESDAY, tick=False):
            found = times(service, "from=2999-01-01&to=2999-01-05", slice(8, 16))
        assert (found[0], found[-1], len(found)) == ("01T12:00", "02T10:00", 23)

    def test_the_past_is_not_offered(self, times):
        with time_machine.travel(TUESDAY + HOUR / 2, tick=False):
            assert times(ServiceFactory())[0] == "11:00"

    def test_an_inactive_service_offers_nothing(self, times):
        assert times(ServiceFactory(is_active=False)) == []

    def test_a_service_in_slots_mode_offers_only_its_slots(self, api, times):
        slot = SlotFactory(capacity=2)
        SlotFactory(service=slot.service, start_time=TUESDAY + 3 * HOUR, status="cancelled")
        BookingFactory(service=slot.service, slot=slot)
        response = api.get(f"/services/{slot.service_id}/availability?{ONE_DAY}").json()
        assert response["times"] == [
            {
                "start_time": "2999-01-01T10:00:00Z",
                "end_time": "2999-01-01T11:00:00Z",
                "seats_left": 1,
                "slot_id": str(slot.pk),
            }
        ]
        BookingFactory(service=slot.service, slot=slot, seat=2)
        assert times(slot.service) == []

    def test_the_time_of_a_slot_is_not_offered_by_other_services_of_the_calendar(self, times):
        service = ServiceFactory(calendar=opened((9, 13)))
        slot = SlotFactory(service=ServiceFactory(calendar=service.calendar, mode="slots"))
        assert times(service) == ["09:00", "11:00", "12:00"]
        assert times(slot.service) == ["10:00"]

    def test_an_open_service_offers_its_slots_and_other_times_in_order(self, times):
        service = ServiceFactory(calendar=opened((9, 13)))
        SlotFactory(service=service, start_time=TUESDAY + HOUR / 2)
        assert times(service) == ["09:00", "10:30", "12:00"]

    def test_slots_ignore_opening_hours_but_not_time_off(self, times):
        slot = SlotFactory(service=ServiceFactory(calendar=opened((20, 21)), mode="slots"))
        assert times(slot.service) == ["10:00"]
        TimeOff.objects.create(
            calendar=slot.calendar, start_time=TUESDAY + HOUR / 2, end_time=TUESDAY + 9 * HOUR
        )
        assert times(slot.service) == []


class TestWindow:
    def test_by_default_the_window_begins_now_and_lasts_a_week(self, times):
        with time_machine.travel(TUESDAY, tick=False):
            found = times(ServiceFactory(), "", slice(0, 16))
        assert (found[0], found[-1]) == ("2999-01-01T10:00", "2999-01-08T09:00")

    def test_without_an_end_the_window_is_a_week_long(self, times):
        found = times(ServiceFactory(), "from=2999-01-01", slice(0, 16))
        assert (found[0], found[-1]) == ("2999-01-01T00:00", "2999-01-07T23:00")

    def test_the_window_contains_the_times_that_start_in_it(self, times):
        service = ServiceFactory()
        query = {"from": "2999-01-01T10:00:00Z", "to": "2999-01-01T12:00:00+00:00"}
        assert times(service, urlencode(query)) == ["10:00", "11:00"]

    def test_a_date_is_a_day_in_the_requested_zone(self, times):
        found = times(ServiceFactory(), f"{ONE_DAY}&tz=America/New_York", slice(0, 19))
        assert (found[0], found[-1]) == ("2999-01-01T00:00:00", "2999-01-01T23:00:00")

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("from=2999-01-02&to=2999-01-01", "to"),
            ("from=2999-01-01T10:00:00Z&to=2999-01-01T10:00:00Z", "to"),
            ("from=2999-01-01&to=2999-03-04", "to"),
            ("from=tomorrow", "from"),
            ("to=2999-01-01T10:00:00", "to"),
            ("from=2999-02-30", "from"),
            ("explain=2", "explain"),
            ("limit=5", "limit"),
            ("until=2999-01-01", "until"),
        ],
    )
    def test_a_refusal_names_the_invalid_parameter(self, api, query, field):
        response = api.get(f"/services/{ServiceFactory().pk}/availability?{query}")
        problem(response, 400, "validation_error", field)

    def test_a_window_can_be_sixty_two_days_long(self, times):
        assert (
            len(times(ServiceFactory(duration_minutes=1440), "from=2999-01-01&to=2999-03-03")) == 62
        )

    def test_sixty_two_days_with_a_change_of_clocks_can_be_searched(self, api):
        """On the last Sunday in October, the clocks in Lisbon are set back by an hour."""
        path = f"/services/{ServiceFactory().pk}/availability?tz=Europe/Lisbon&from=2026-10-01"
        assert api.get(f"{path}&to=2026-12-01").status_code == 200
        problem(api.get(f"{path}&to=2026-12-02"), 400, "validation_error", "to")

    def test_sixty_two_times_24_hours_in_which_clocks_are_set_forward_can_be_searched(self, api):
        """On the last Sunday in March, the clocks in Lisbon are set forward by an hour."""
        path = f"/services/{ServiceFactory().pk}/availability?tz=Europe/Lisbon"
        path = f"{path}&from=2026-01-30T00:00:00Z"
        assert api.get(f"{path}&to=2026-04-02T00:00:00Z").status_code == 200
        problem(api.get(f"{path}&to=2026-04-02T00:00:01Z"), 400, "validation_error", "to")

    def test_without_an_end_seven_whole_days_are_searched_if_the_start_is_a_date(self, times):
        """On the last Sunday in October, the clocks in Lisbon are set back by an hour."""
        found = times(ServiceFactory(), "tz=Europe/Lisbon&from=2999-10-26", slice(0, 13))
        assert found[0] == "2999-10-26T00"
        assert found[-1] == "2999-11-01T23"

    def test_a_service_that_does_not_exist_is_not_found(self, api):
        unknown = "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42"
        problem(api.get(f"/services/{unknown}/availability"), 404, "not_found")


class TestReasons:
    def test_each_refused_time_has_its_reason(self, api):
        provider = ProviderFactory()
        service = ServiceFactory(
            calendar=opened((9, 15), provider=provider), min_notice_minutes=60, max_advance_days=1
        )
        BookingFactory(service=service, start_time=TUESDAY + 3 * HOUR)
        TimeOff.objects.create(
            calendar=service.calendar,
            start_time=TUESDAY + 4 * HOUR,
            end_time=TUESDAY + 4 * HOUR + HOUR / 60,
        )
        query = "from=2999-01-01&to=2999-01-02&explain=true"
        with time_machine.travel(TUESDAY + HOUR / 2, tick=False):
            response = api.as_(provider).get(f"/services/{service.pk}/availability?{query}").json()
        assert [time["start_time"][8:13] for time in response["times"]] == [
            "01T12",
            "02T09",
            "02T10",
        ]
        assert [(each["start_time"][8:13], each["code"]) for each in response["refused"]] == [
            ("01T09", "validation_error"),
            ("01T10", "validation_error"),
            ("01T11", "too_soon"),
            ("01T13", "booking_conflict"),
            ("01T14", "outside_opening_hours"),
            ("02T11", "too_far_ahead"),
            ("02T12", "too_far_ahead"),
            ("02T13", "too_far_ahead"),
            ("02T14", "too_far_ahead"),
        ]

    def test_a_time_that_does_not_fit_before_closing_is_outside_the_opening_hours(self, api):
        service = ServiceFactory(calendar=opened((9, 11)), duration_minutes=45)
        response = (
            api.as_(AdminFactory())
            .get(f"/services/{service.pk}/availability?{ONE_DAY}&explain=true")
            .json()
        )
        assert [(each["start_time"][11:16], each["code"]) for each in response["refused"]] == [
            ("10:30", "outside_opening_hours")
        ]

    def test_a_full_slot_is_explained(self, api):
        slot = SlotFactory(capacity=1)
        BookingFactory(service=slot.service, slot=slot)
        response = (
            api.as_(AdminFactory())
            .get(f"/services/{slot.service_id}/availability?{ONE_DAY}&explain=true")
            .json()
        )
        assert (response["times"], response["refused"]) == (
            [],
            [
                {
                    "start_time": "2999-01-01T10:00:00Z",
                    "end_time": "2999-01-01T11:00:00Z",
                    "slot_id": str(slot.pk),
                    "code": "slot_full",
                }
            ],
        )

    def test_all_times_of_an_inactive_service_are_refused(self, api):
        service = ServiceFactory(calendar=opened((9, 11)), is_active=False)
        response = (
            api.as_(AdminFactory())
            .get(f"/services/{service.pk}/availability?{ONE_DAY}&explain=true")
            .json()
        )
        assert [each["code"] for each in response["refused"]] == ["service_inactive"] * 2

    def test_customers_and_other_providers_cannot_ask_for_explanations(self, api, client):
        path = f"/services/{ServiceFactory().pk}/availability?{ONE_DAY}&explain=true"
        problem(api.get(path), 401, "not_authenticated")
        problem(client.get(path), 403, "permission_denied")
        problem(api.as_(ProviderFactory()).get(path), 403, "permission_denied")
        assert "refused" not in client.get(path.replace("true", "false")).json()

    @pytest.mark.parametrize("spelling", ["tRUE", "True", "1", "on", "t", "false&explain=tRUE"])
    def test_another_spelling_of_true_does_not_get_around_the_permission_check(self, api, spelling):
        path = f"/services/{ServiceFactory().pk}/availability?{ONE_DAY}&explain={spelling}"
        problem(api.get(path), 400, "validation_error", "explain")


class TestSeveralServices:
    def test_results_are_in_the_requested_order_and_equal_single_searches(self, api):
        services = [ServiceFactory(calendar=opened((9 + n, 12 + n))) for n in range(5)]
        BookingFactory(service=services[2], start_time=TUESDAY + 2 * HOUR)
        requested = [services[n] for n in (3, 0, 2, 4, 1)]
        query = "&".join(f"service_id={service.pk}" for service in requested)
        response = api.get(f"/availability?{query}&{ONE_DAY}").json()
        assert response == {
            "results": [
                api.get(f"/services/{service.pk}/availability?{ONE_DAY}").json()
                for service in requested
            ]
        }

    def test_a_service_that_is_named_twice_has_one_result(self, api):
        service = ServiceFactory()
        response = api.get(f"/availability?service_id={service.pk}&service_id={service.pk}").json()
        assert len(response["results"]) == 1

    def test_one_to_fifty_services_can_be_searched(self, api):
        services = ServiceFactory.create_batch(51)
        ids = [f"service_id={service.pk}" for service in services]
        assert len(api.get(f"/availability?{'&'.join(ids[:50])}").json()["results"]) == 50
        problem(api.get(f"/availability?{'&'.join(ids)}"), 400, "validation_error", "service_id")
        problem(api.get("/availability"), 400, "validation_error", "service_id")

    def test_a_search_that_is_split_into_parts_returns_all_services_in_order(self, api):
        # 20 services for 60 days are more than `SERVICE_DAYS`, so the view searches them in parts.
        services = ServiceFactory.create_batch(20, calendar=opened((9, 12)))
        BookingFactory(service=services[15], start_time=TUESDAY)
        ids = "&".join(f"service_id={service.pk}" for service in services)
        with CaptureQueriesContext(connection) as captured:
            response = api.get(f"/availability?{ids}&from=2999-01-01&to=2999-03-01").json()
        assert len(captured) == 3  # one for each part
        assert [each["service_id"] for each in response["results"]] == [
            str(service.pk) for service in services
        ]
        assert response["results"][15] == (
            api.get(
                f"/services/{services[15].pk}/availability?from=2999-01-01&to=2999-03-01"
            ).json()
        )
        unknown = "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42"
        response = api.get(
            f"/availability?{ids}&service_id={unknown}&from=2999-01-01&to=2999-03-01"
        )
        problem(response, 400, "validation_error", "service_id")

    def test_a_search_with_too_many_times_is_refused(self, api):
        services = ServiceFactory.create_batch(2, duration_minutes=1)
        window = "from=2999-01-01&to=2999-03-03"
        one = api.get(f"/services/{services[0].pk}/availability?{window}")
        assert len(one.json()["times"]) == 62 * 24 * 60
        ids = "&".join(f"service_id={service.pk}" for service in services)
        problem(api.get(f"/availability?{ids}&{window}"), 400, "validation_error", "to")

    def test_a_refusal_names_the_unknown_service(self, api):
        unknown = "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42"
        content = problem(
            api.get(f"/availability?service_id={ServiceFactory().pk}&service_id={unknown}"),
            400,
            "validation_error",
            "service_id",
        )
        assert unknown in content["errors"][0]["message"]
        response = api.get("/availability?service_id=x")
        assert problem(response, 400, "validation_error")["errors"][0]["field"] == "service_id.0"


class TestFindingServices:
    def find(self, api, query):
        response = api.get(f"/services?{query}")
        assert response.status_code == 200, response.content
        return [service["title"] for service in response.json()["results"]]

    def test_services_are_found_by_a_free_time_in_a_window(self, api):
        early = ServiceFactory(calendar=opened((8, 10)), title="Early")
        ServiceFactory(calendar=opened((14, 16)), title="Late")
        SlotFactory(service__title="Slot")
        ServiceFactory(calendar=opened((8, 10)), title="Inactive", is_active=False)
        assert self.find(api, "available_from=2999-01-01&available_to=2999-01-01") == [
            *("Early", "Late", "Slot")
        ]
        morning = "available_from=2999-01-01T07:00:00Z&available_to=2999-01-01T12:00:00Z"
        assert self.find(api, morning) == ["Early", "Slot"]
        for hours in (-2, -1):
            BookingFactory(service=early, start_time=TUESDAY + hours * HOUR)
        assert self.find(api, morning) == ["Slot"]

    def test_the_filter_can_be_combined_with_other_filters_and_pagination(self, api):
        for number in range(5):
            ServiceFactory(title=f"Yoga {number}", category="Sport", price=number)
        ServiceFactory(title="Cut", category="Barber")
        query = "available_from=2999-01-01&available_to=2999-01-02&category=Sport"
        assert self.find(api, f"{query}&ordering=-price&limit=2") == ["Yoga 4", "Yoga 3"]
        assert api.get(f"/services?{query}&limit=2").json()["count"] == 5
        assert self.find(api, f"{query}&q=yoga&price_max=1&ordering=title") == ["Yoga 0", "Yoga 1"]

    def test_each_page_continues_after_the_previous_one(self, api):
        for number in range(7):
            closed = number % 2
            ServiceFactory(title=f"Yoga {number}", calendar=opened((8, 9) if closed else (9, 17)))
        query = "available_from=2999-01-01T10:00:00Z&available_to=2999-01-01T12:00:00Z&limit=2"
        for more in ("", "&q=yoga&ordering=title"):
            pages = [api.get(f"/services?{query}{more}&page={page}").json() for page in (1, 2, 3)]
            assert [[row["title"] for row in page["results"]] for page in pages] == [
                ["Yoga 0", "Yoga 2"],
                ["Yoga 4", "Yoga 6"],
                [],
            ]
            assert [page["count"] for page in pages] == [4, 4, 4]
            assert [bool(page["next"]) for page in pages] == [True, False, False]

    def test_the_count_of_many_services_is_marked_as_an_estimate(self, api):
        with (
            patch("catalog.listing.ENOUGH_FOR_COUNT", 4),
            patch("catalog.listing.AT_A_TIME", 2),
        ):
            ServiceFactory.create_batch(12)
            query = "available_from=2999-01-01&available_to=2999-01-01"
            page = api.get(f"/services?{query}&limit=2").json()
            assert (page["count"], page["count_exact"]) == (12, False)
            page = api.get(f"/services?{query}&limit=12").json()
            assert page["count"] == 12
            assert "count_exact" not in page

    def test_a_search_over_too_many_services_is_refused(self, api):
        ServiceFactory.create_batch(5, calendar=opened((8, 9)))
        ServiceFactory(title="Yoga", calendar=opened((9, 17)))
        query = "available_from=2999-01-01T10:00:00Z&available_to=2999-01-01T12:00:00Z"
        with patch("catalog.listing.MAX_LOOKED_AT", 4):
            problem(api.get(f"/services?{query}"), 400, "validation_error", "available_from")
            assert self.find(api, f"{query}&q=yoga") == ["Yoga"]
        assert self.find(api, query) == ["Yoga"]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("available_from=2999-01-01", "available_to"),
            ("available_to=2999-01-01", "available_from"),
            ("available_from=2999-01-02&available_to=2999-01-01", "available_to"),
            ("available_from=2999-01-01&available_to=2999-12-01", "available_to"),
            ("available_from=x&available_to=2999-12-01", "available_from"),
        ],
    )
    def test_a_refusal_names_the_invalid_parameter(self, api, query, field):
        problem(api.get(f"/services?{query}"), 400, "validation_error", field)


class TestAlternatives:
    def starts(self, response, code="booking_conflict"):
        return [each["start_time"] for each in problem(response, 409, code)["alternatives"]]

    def book(self, client, service, start_time=TUESDAY):
        body = {"service_id": str(service.pk), "start_time": start_time.isoformat()}
        return client.post("/bookings", body)

    def test_a_conflict_names_the_three_nearest_free_times(self, client):
        service = ServiceFactory(calendar=opened((9, 17)))
        for hours in (0, 1, -1):
            BookingFactory(service=service, start_time=TUESDAY + hours * HOUR)
        response = self.book(client, service)
        assert self.starts(response) == [f"2999-01-01T{hour}:00:00Z" for hour in ("12", "13", "14")]
        assert response.json()["alternatives"][0] == {
            "start_time": "2999-01-01T12:00:00Z",
            "end_time": "2999-01-01T13:00:00Z",
            "slot_id": None,
        }

    def test_the_earlier_of_two_equally_near_times_comes_first(self, client):
        service = ServiceFactory()
        BookingFactory(service=service)
        assert self.starts(self.book(client, service)) == [
            f"2999-01-01T{hour}:00:00Z" for hour in ("09", "11", "08")
        ]

    def test_alternatives_to_a_time_outside_the_opening_hours_are_inside_them(self, client):
        service = ServiceFactory(calendar=opened(([0], 9, 11)))
        response = self.book(client, service)  # On a Tuesday; the calendar is open on Mondays.
        assert self.starts(response, "outside_opening_hours") == [
            *("2998-12-31T10:00:00Z", "2998-12-31T09:00:00Z", "2999-01-07T09:00:00Z"),
        ]

    def test_alternatives_to_a_full_slot_are_other_slots(self, client):
        slot = SlotFactory(capacity=1)
        BookingFactory(service=slot.service, slot=slot)
        later = SlotFactory(service=slot.service, start_time=TUESDAY + timedelta(days=20))
        content = problem(client.post("/bookings", {"slot_id": str(slot.pk)}), 409, "slot_full")
        assert content["alternatives"] == [
            {
                "start_time": "2999-01-21T10:00:00Z",
                "end_time": "2999-01-21T11:00:00Z",
                "slot_id": str(later.pk),
            }
        ]
        # A client can send an alternative back as it is.
        assert client.post("/bookings", content["alternatives"][0]).status_code == 201

    def test_alternatives_are_at_most_a_month_away(self, client):
        service = ServiceFactory(mode="slots")
        SlotFactory(service=service, start_time=TUESDAY + timedelta(days=32))
        response = self.book(client, service)
        assert self.starts(response, "outside_opening_hours") == []

    def test_only_free_times_near_the_requested_time_are_compared(self, client, monkeypatch):
        service = ServiceFactory(duration_minutes=5, step_minutes=1)
        closed = timedelta(days=8)
        TimeOffFactory(
            calendar=service.calendar, start_time=TUESDAY - closed, end_time=TUESDAY + closed
        )
        compared = []

        def counted(*args):
            for period in periods(*args):
                compared.append(period)
                yield period

        monkeypatch.setattr(search, "periods", counted)

        response = self.book(client, service)

        # The third search covers 31 days before and after. The calendar is open on 48 of these
        # dates. Each date has a grid of 1,440 starts, of which at most 9 are compared.
        assert self.starts(response, "outside_opening_hours") == [
            f"2999-01-09T10:0{minute}:00Z" for minute in range(3)
        ]
        assert len(compared) <= 48 * 9

    def test_alternatives_are_in_the_requested_zone(self, api):
        service = ServiceFactory()
        BookingFactory(service=service)
        body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}
        response = api.as_(UserFactory()).post("/bookings?tz=Asia/Tokyo", body)
        assert self.starts(response)[0] == "2999-01-01T18:00:00+09:00"

    def test_alternatives_for_a_move_ignore_the_booking_itself(self, api):
        service = ServiceFactory(step_minutes=30)
        booking = BookingFactory(service=service)
        BookingFactory(service=service, start_time=TUESDAY + HOUR)
        response = api.as_(booking.user).patch(
            f"/bookings/{booking.pk}", {"start_time": (TUESDAY + HOUR).isoformat()}
        )
        starts = self.starts(response)
        assert starts == [f"2999-01-01T{at}:00Z" for at in ("12:00", "09:30", "12:30")]
        for start in starts:
            moved = api.as_(booking.user).patch(f"/bookings/{booking.pk}", {"start_time": start})
            assert moved.status_code == 200

    def test_a_move_has_three_alternatives_although_the_present_time_is_left_out(self, api):
        service = ServiceFactory(calendar=opened((7, 12)))
        booking = BookingFactory(service=service)
        BookingFactory(service=service, start_time=TUESDAY + HOUR)
        response = api.as_(booking.user).patch(
            f"/bookings/{booking.pk}", {"start_time": (TUESDAY + HOUR).isoformat()}
        )
        assert self.starts(response) == [f"2999-01-01T{hour}:00:00Z" for hour in ("09", "08", "07")]

    def test_alternatives_for_a_move_have_the_length_of_the_booking(self, api):
        service = ServiceFactory(calendar=opened((9, 13)), duration_minutes=30)
        booking = BookingFactory(
            service=service,
            start_time=TUESDAY - HOUR,
            end_time=TUESDAY + HOUR,
            blocked=(TUESDAY - HOUR, TUESDAY + HOUR),
        )
        BookingFactory(service=service, start_time=TUESDAY + 3 * HOUR / 2)
        response = api.as_(booking.user).patch(
            f"/bookings/{booking.pk}", {"start_time": (TUESDAY + HOUR).isoformat()}
        )
        assert self.starts(response)[0] == "2999-01-01T09:30:00Z"
        assert Booking.objects.get(pk=booking.pk).start_time == TUESDAY - HOUR

    def test_an_inactive_service_and_a_time_too_far_ahead_have_no_alternatives(self, client):
        response = self.book(client, ServiceFactory(is_active=False))
        assert "alternatives" not in problem(response, 409, "service_inactive")
        response = self.book(client, ServiceFactory(max_advance_days=1))
        assert "alternatives" not in problem(response, 409, "too_far_ahead")


class TestQueries:
    def fill(self, services, days):
        for service in services:
            for day in range(days):
                start = TUESDAY + timedelta(days=day)
                BookingFactory(service=service, start_time=start)
                SlotFactory(service=service, start_time=start + 3 * HOUR)
                TimeOff.objects.create(
                    calendar=service.calendar,
                    start_time=start + 5 * HOUR,
                    end_time=start + 6 * HOUR,
                )

    def count(self, api, path):
        with CaptureQueriesContext(connection) as captured:
            response = api.get(path)
        assert response.status_code == 200, response.content
        return len(captured)

    def test_a_search_that_is_not_split_takes_one_query_however_large_it_is(self, api):
        services = [ServiceFactory(calendar=opened((9, 12), (13, 18))) for _ in range(6)]
        one = f"/services/{services[0].pk}/availability?from=2999-01-01"
        several = "&".join(f"service_id={service.pk}" for service in services)
        assert self.count(api, f"{one}&to=2999-01-01") == 1
        self.fill(services, 20)
        assert self.count(api, f"{one}&to=2999-03-03") == 1
        assert self.count(api, f"/availability?service_id={services[0].pk}") == 1
        assert self.count(api, f"/availability?{several}&from=2999-01-01&to=2999-03-03") == 1

    def test_the_filter_takes_three_queries_if_all_services_are_free_on_the_first_day(self, api):
        path = "/services?available_from=2999-01-01&available_to=2999-01-20&limit=100"
        self.fill(ServiceFactory.create_batch(2), 2)
        few = self.count(api, path)
        self.fill(ServiceFactory.create_batch(20), 3)
        # The queries find the candidates, search them, and read the page. Services that are not
        # free on the first day are searched again, over more days.
        assert self.count(api, path) == few == 3


class TestCost:
    """The cost of the most expensive searches and explanations."""

    WINDOW = "from=2999-01-01&to=2999-03-03"

    def peak(self, api, path, status=200):
        """Return the peak memory of a response, in MiB."""
        api.get("/services")  # Fill the caches, whose memory does not count.
        gc.collect()
        tracemalloc.start()
        try:
            assert api.get(path).status_code == status
            return tracemalloc.get_traced_memory()[1] / 2**20
        finally:
            tracemalloc.stop()

    def closed(self, count):
        """Return services whose calendars have time off during the whole window."""
        services = ServiceFactory.create_batch(count, duration_minutes=1, step_minutes=1)
        for service in services:
            TimeOff.objects.create(
                calendar=service.calendar,
                start_time=TUESDAY - timedelta(days=2),
                end_time=TUESDAY + timedelta(days=90),
            )
        return services

    def test_a_filter_over_three_hundred_closed_services_takes_little_memory_and_time(self, api):
        self.closed(300)
        path = "/services?available_from=2999-01-01&available_to=2999-03-03"
        # A list of the starts of one service takes 5 MiB, so few lists may be in memory at a time.
        assert self.peak(api, path) < 30
        began = time.process_time()
        assert api.get(path).json()["count"] == 0
        assert time.process_time() - began < 1

    def test_a_search_of_fifty_closed_services_uses_little_memory(self, api):
        ids = "&".join(f"service_id={service.pk}" for service in self.closed(50))
        # The lists of the starts of all services would take 240 MiB.
        assert self.peak(api, f"/availability?{ids}&{self.WINDOW}") < 30

    @pytest.mark.parametrize("tz", ["UTC", "Asia/Kathmandu"])
    def test_the_longest_response_uses_little_memory(self, api, tz):
        service = ServiceFactory(duration_minutes=1)
        path = f"/services/{service.pk}/availability?{self.WINDOW}&tz={tz}"
        assert self.peak(api, path) < 30
        two = f"service_id={service.pk}&service_id={ServiceFactory(duration_minutes=1).pk}"
        assert self.peak(api, f"/availability?{two}&{self.WINDOW}", 400) < 30

    def test_an_explanation_with_much_time_off_is_fast(self, api):
        service = ServiceFactory(duration_minutes=30)
        TimeOff.objects.bulk_create(
            TimeOff(
                calendar=service.calendar,
                start_time=TUESDAY + timedelta(hours=2 * number),
                end_time=TUESDAY + timedelta(hours=2 * number + 1),
            )
            for number in range(600)
        )
        admin = api.as_(AdminFactory())
        began = time.process_time()
        response = admin.get(f"/services/{service.pk}/availability?{self.WINDOW}&explain=true")
        # A loop over all time off for each start would take 1 s on an idle machine.
        assert time.process_time() - began < 0.5
        assert len(response.json()["refused"]) == 1200

    def test_an_explanation_of_every_minute_is_refused(self, api):
        [service] = self.closed(1)
        admin = api.as_(AdminFactory())
        response = admin.get(f"/services/{service.pk}/availability?{self.WINDOW}&explain=true")
        problem(response, 400, "validation_error", "to")


def test_a_time_that_is_offered_now_can_be_booked_now(api, client):
    """This test does not freeze the clock."""
    service = ServiceFactory(duration_minutes=1, step_minutes=1)
    until = (timezone.now() + timedelta(minutes=30)).isoformat()
    query = urlencode({"to": until})
    times = api.get(f"/services/{service.pk}/availability?{query}").json()["times"]
    assert times
    for each in times[1:]:  # The first time can pass before it is booked.
        body = {"service_id": str(service.pk), "start_time": each["start_time"]}
        assert client.post("/bookings", body).status_code == 201
