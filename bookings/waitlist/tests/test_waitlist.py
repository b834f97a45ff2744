"""The waitlist of a full slot: joining it, leaving it, and the offers of free seats."""

from datetime import datetime, timedelta

import pytest
import time_machine
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.privacy.services import erase_user
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.clock import expire_bookings
from bookings.models import Booking, BookingEvent, Slot
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory, WaitlistEntryFactory
from bookings.tests.jobs import relay_jobs
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry
from bookit.tests.crowd import disabled_trigger, run
from bookit.tests.expect import problem
from catalog.models import TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TASKS = ["bookings.follow_up", "bookings.offer_seats"]


@pytest.fixture
def work():
    """Return a function that runs the jobs of `TASKS`, also those that these jobs enqueue."""
    done = set()

    def run_jobs():
        relay_jobs()
        while jobs := ProcrastinateJob.objects.filter(task_name__in=TASKS).exclude(pk__in=done):
            for job in jobs.order_by("id"):
                done.add(job.pk)
                app.tasks[job.task_name](**job.args)
            relay_jobs()

    return run_jobs


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def service(provider):
    """A class with two seats."""
    calendar = CalendarFactory(provider=provider)
    return ServiceFactory(calendar=calendar, capacity=2, mode="slots")


@pytest.fixture
def slot(service):
    """A full slot of the class."""
    slot = SlotFactory(service=service, start_time=TUESDAY)
    for seat in (1, 2):
        seated(slot, seat)
    return slot


@pytest.fixture
def people():
    return UserFactory.create_batch(3)


def seated(slot, seat, **fields):
    return BookingFactory(
        slot=slot,
        service=slot.service,
        start_time=slot.start_time,
        end_time=slot.end_time,
        blocked=slot.blocked,
        seat=seat,
        **fields,
    )


@pytest.fixture
def join(api):
    """Return a function that lets a user join the waitlist of a slot."""

    def post(user, slot):
        return api.as_(user).post(f"/slots/{slot.pk}/waitlist", {})

    return post


@pytest.fixture
def queue(join, people, slot):
    """Let three users join the waitlist of the slot, one after another; return their entries."""
    return [join(user, slot).json() for user in people]


def statuses(slot):
    return list(slot.waitlist.order_by("created_at", "id").values_list("status", flat=True))


@pytest.fixture
def seen(api):
    """Return a function that lists the waitlist of a slot as a user and returns the entries."""

    def get(user, slot):
        response = api.as_(user).get(f"/slots/{slot.pk}/waitlist")
        assert response.status_code == 200, response.content
        return response.json()["results"]

    return get


@pytest.fixture
def cancel(api, work):
    """Return a function that cancels a booking as its owner and runs the jobs that follow."""

    def patch(booking):
        response = api.as_(booking.user).patch(f"/bookings/{booking.pk}", {"status": "cancelled"})
        assert response.status_code == 200, response.content
        work()

    return patch


def offer_to(user, slot):
    return Booking.objects.get(user=user, slot=slot, status=Booking.Status.HELD)


class TestJoining:
    def test_the_response_to_joining_shows_the_position(self, api, join, people, slot):
        first, second = join(people[0], slot), join(people[1], slot)
        assert (first.status_code, second.status_code) == (201, 201)
        entry = second.json()
        assert second["Location"] == f"http://testserver/slots/{slot.pk}/waitlist/{entry['id']}"
        assert api.as_(people[1]).get(second["Location"]).json() == entry
        assert entry.pop("updated_at") == entry["created_at"]
        assert datetime.fromisoformat(entry.pop("created_at")) <= timezone.now()
        assert entry == {
            "id": str(people[1].waitlist_entries.get().pk),
            "slot_id": str(slot.pk),
            "user_id": str(people[1].pk),
            "status": "waiting",
            "position": 2,
            "booking_id": None,
        }
        assert first.json()["position"] == 1

    def test_joining_again_keeps_the_position(self, join, people, slot, queue):
        again = join(people[1], slot)
        assert (again.status_code, again.json()) == (201, queue[1])
        assert slot.waitlist.count() == 3

    def test_a_request_that_began_earlier_but_got_the_lock_later_joins_at_the_end(
        self, people, slot
    ):
        """The same happens if the clock of its server is slow."""
        at = TUESDAY - DAY
        for began, user in zip((at, at - MINUTE, at - MINUTE), people, strict=True):
            waitlist.join(slot_id=slot.pk, actor=user, at=began)
        entries = slot.waitlist.annotate(position=waitlist.POSITION).order_by("position")
        assert [(each.user, each.position) for each in entries] == [
            (user, position) for position, user in enumerate(people, start=1)
        ]

    def test_joining_a_slot_with_free_seats_is_refused(self, join, people, service):
        slot = SlotFactory(service=service, start_time=TUESDAY)
        seated(slot, 1)
        refused = problem(join(people[0], slot), 409, "slot_not_full")
        assert (
            refused["detail"]
            == "This slot has free seats. Book one instead of joining the waitlist."
        )

    def test_joining_behind_users_who_wait_for_a_free_seat_is_allowed(
        self, join, people, slot, queue
    ):
        slot.bookings.first().delete()
        assert join(UserFactory(), slot).json()["position"] == 4

    def test_the_seat_of_an_expired_hold_counts_as_free(self, join, people, service):
        slot = SlotFactory(service=service, start_time=TUESDAY, capacity=1)
        ended = timezone.now() - MINUTE
        seated(slot, 1, status=Booking.Status.HELD, hold_expires_at=ended)
        problem(join(people[0], slot), 409, "slot_not_full")

    def test_joining_a_slot_in_which_the_user_has_a_seat_is_refused(self, join, slot):
        refused = problem(join(slot.bookings.first().user, slot), 400, "validation_error")
        assert refused["detail"] == "You already have a seat in this slot."

    def test_joining_a_cancelled_slot_is_refused(self, join, people, slot):
        Slot.objects.update(status="cancelled")
        problem(join(people[0], slot), 409, "service_inactive")

    def test_joining_a_slot_of_an_inactive_service_is_refused(self, join, people, slot, service):
        service.is_active = False
        service.save()
        problem(join(people[0], slot), 409, "service_inactive")

    def test_joining_a_slot_within_the_minimum_notice_or_after_its_start_is_refused(
        self, join, people, slot, service
    ):
        service.min_notice_minutes = 60
        service.save()
        with time_machine.travel(TUESDAY - 59 * MINUTE):
            problem(join(people[0], slot), 409, "too_soon")
        with time_machine.travel(TUESDAY + MINUTE):
            problem(join(people[0], slot), 400, "validation_error", "start_time")

    def test_joining_a_slot_beyond_the_booking_horizon_is_refused(
        self, join, people, slot, service
    ):
        service.max_advance_days = 7
        service.save()
        problem(join(people[0], slot), 409, "too_far_ahead")

    def test_joining_a_slot_during_time_off_is_refused(self, join, people, slot):
        TimeOff.objects.create(calendar=slot.calendar, start_time=TUESDAY, end_time=TUESDAY + DAY)
        problem(join(people[0], slot), 409, "outside_opening_hours")

    def test_the_refusal_during_time_off_lists_free_slots(self, join, people, slot, service):
        TimeOff.objects.create(calendar=slot.calendar, start_time=TUESDAY, end_time=TUESDAY + HOUR)
        free = SlotFactory(service=service, start_time=TUESDAY + DAY)

        refused = problem(join(people[0], slot), 409, "outside_opening_hours")

        assert [time["slot_id"] for time in refused["alternatives"]] == [str(free.pk)]

    def test_the_waitlist_of_an_unknown_slot_is_not_found(self, api, people):
        path = "/slots/01980000-0000-7000-8000-000000000000/waitlist"
        client = api.as_(people[0])
        problem(client.post(path, {}), 404, "not_found")
        problem(client.get(path), 404, "not_found")
        problem(client.delete(f"{path}/01980000-0000-7000-8000-000000000000"), 404, "not_found")

    def test_a_user_cannot_join_for_somebody_else(self, api, people, slot):
        client = api.as_(people[0])
        # Clients may send back an entry that they have read, so its fields are ignored.
        entry = client.post(f"/slots/{slot.pk}/waitlist", {"user_id": str(people[1].pk)}).json()
        assert entry["user_id"] == str(people[0].pk)
        response = client.post(f"/slots/{slot.pk}/waitlist", {"user": str(people[1].pk)})
        problem(response, 400, "validation_error", "user")


class TestTheQueue:
    def test_users_see_only_their_own_entry(self, seen, people, slot, queue):
        assert seen(people[1], slot) == [queue[1]]
        assert seen(UserFactory(), slot) == []

    @pytest.mark.parametrize("who", ["provider", "admin"])
    def test_the_provider_and_admins_see_all_entries_in_order(
        self, seen, provider, slot, queue, who
    ):
        assert seen(provider if who == "provider" else AdminFactory(), slot) == queue

    def test_another_provider_sees_no_entries(self, seen, slot, queue):
        assert seen(ProviderFactory(), slot) == []

    def test_each_slot_has_its_own_waitlist(self, join, seen, provider, service, slot, queue):
        other = SlotFactory(service=service, start_time=TUESDAY + DAY, capacity=1)
        seated(other, 1)
        entry = join(UserFactory(), other).json()
        assert entry["position"] == 1
        assert seen(provider, other) == [entry]

    @pytest.mark.one_server("counts statements, and a cluster needs more of them")
    def test_listing_entries_takes_three_queries_for_any_number_of_entries(
        self, api, provider, slot
    ):
        client, counts = api.as_(provider), []
        for people in (1, 30):
            for user in UserFactory.create_batch(people):
                WaitlistEntryFactory(slot=slot, user=user)
            with CaptureQueriesContext(connection) as captured:
                rows = client.get(f"/slots/{slot.pk}/waitlist?limit=100").json()["results"]
            counts.append(len(captured))
        assert [row["position"] for row in rows] == list(range(1, 32))
        # One query each for the account, the slot and the entries.
        assert counts == [3, 3]

    def test_the_database_refuses_a_second_waiting_entry_of_a_user(self, people, slot, queue):
        with pytest.raises(IntegrityError, match="waitlist_once"), transaction.atomic():
            WaitlistEntryFactory(slot=slot, user=people[0])


class TestLeaving:
    def leave(self, api, user, slot, entry):
        return api.as_(user).delete(f"/slots/{slot.pk}/waitlist/{entry['id']}")

    def test_leaving_moves_later_users_up_in_the_queue(self, api, seen, people, slot, queue):
        assert self.leave(api, people[0], slot, queue[0]).status_code == 204
        assert [seen(user, slot)[0]["position"] for user in people] == [None, 1, 2]
        assert seen(people[0], slot)[0]["status"] == "left"

    def test_a_user_who_left_joins_again_at_the_end_of_the_queue(
        self, api, join, people, slot, queue
    ):
        self.leave(api, people[0], slot, queue[0])
        assert join(people[0], slot).json()["position"] == 3

    def test_leaving_twice_changes_nothing(self, api, people, slot, queue):
        for _ in range(2):
            assert self.leave(api, people[0], slot, queue[0]).status_code == 204
        assert statuses(slot) == ["left", "waiting", "waiting"]

    def test_other_users_cannot_remove_an_entry(self, api, people, slot, queue):
        problem(self.leave(api, people[1], slot, queue[0]), 403, "permission_denied")
        problem(self.leave(api, ProviderFactory(), slot, queue[0]), 403, "permission_denied")

    def test_an_entry_is_not_found_under_another_slot(self, api, people, service, slot, queue):
        other = SlotFactory(service=service, start_time=TUESDAY + DAY)
        problem(self.leave(api, people[0], other, queue[0]), 404, "not_found")

    @pytest.mark.parametrize("who", ["user", "provider"])
    def test_leaving_passes_an_offered_seat_to_the_next_user(
        self, api, cancel, people, provider, slot, queue, who, work
    ):
        cancel(slot.bookings.first())
        offer = offer_to(people[0], slot)
        actor = people[0] if who == "user" else provider
        assert self.leave(api, actor, slot, queue[0]).status_code == 204
        work()
        offer.refresh_from_db()
        assert offer.status == "cancelled"
        assert statuses(slot) == ["left", "offered", "waiting"]
        assert offer_to(people[1], slot)

    def test_leaving_does_not_cancel_a_booking(self, api, cancel, people, slot, queue):
        cancel(slot.bookings.first())
        offer = offer_to(people[0], slot)
        api.as_(people[0]).patch(f"/bookings/{offer.pk}", {"status": "pending"})
        assert self.leave(api, people[0], slot, queue[0]).status_code == 204
        offer.refresh_from_db()
        assert offer.status == "pending"
        assert statuses(slot) == ["booked", "waiting", "waiting"]


class TestAFreedSeat:
    def test_a_freed_seat_is_held_for_the_first_user(self, cancel, seen, people, slot, queue):
        slot.service.price = 31
        slot.service.save()
        before = timezone.now()
        cancelled = slot.bookings.get(seat=1)
        cancel(cancelled)
        offer = offer_to(people[0], slot)
        assert (offer.seat, offer.price, offer.currency) == (1, 31, slot.service.currency)
        assert before + HOUR <= offer.hold_expires_at <= timezone.now() + HOUR
        entry = seen(people[0], slot)[0]
        assert (entry["status"], entry["position"]) == ("offered", None)
        assert entry["booking_id"] == str(offer.pk)
        assert [seen(user, slot)[0]["position"] for user in people[1:]] == [1, 2]
        [event] = BookingEvent.objects.filter(booking_id=offer.pk)
        assert (event.type, event.actor_id) == ("booking.held", None)
        assert event.data["waitlist"] is True
        assert event.data["slot_id"] == str(slot.pk)

    def test_an_offer_is_booked_like_any_other_hold(
        self, api, cancel, seen, people, slot, queue, work
    ):
        cancel(slot.bookings.first())
        offer = offer_to(people[0], slot)
        response = api.as_(people[0]).patch(f"/bookings/{offer.pk}", {"status": "pending"})
        assert (response.status_code, response.json()["status"]) == (200, "pending")
        entry = seen(people[0], slot)[0]
        assert (entry["status"], entry["booking_id"]) == ("booked", str(offer.pk))
        work()
        assert statuses(slot) == ["booked", "waiting", "waiting"]

    def test_other_users_cannot_book_an_offered_seat(self, api, cancel, people, slot, queue):
        cancel(slot.bookings.first())
        outsider = api.as_(UserFactory())
        problem(outsider.post("/bookings", {"slot_id": str(slot.pk)}), 409, "slot_full")
        second = api.as_(people[1])
        problem(second.post("/bookings", {"slot_id": str(slot.pk)}), 409, "slot_full")

    def test_an_offer_that_expires_goes_to_the_next_user(self, cancel, people, slot, queue, work):
        cancel(slot.bookings.first())
        offered_until = offer_to(people[0], slot).hold_expires_at
        with time_machine.travel(offered_until, tick=False):
            expire_bookings(at=timezone.now())
            assert statuses(slot) == ["passed", "waiting", "waiting"]
            work()
            assert offer_to(people[1], slot).hold_expires_at == offered_until + HOUR
        assert statuses(slot) == ["passed", "offered", "waiting"]
        assert not Booking.objects.filter(user=people[0], active=True).exists()

    def test_an_offer_that_is_cancelled_goes_to_the_next_user(self, cancel, people, slot, queue):
        cancel(slot.bookings.first())
        cancel(offer_to(people[0], slot))
        assert statuses(slot) == ["passed", "offered", "waiting"]
        assert offer_to(people[1], slot).seat == 1

    def test_an_offer_that_is_deleted_goes_to_the_next_user(
        self, api, cancel, people, slot, queue, work
    ):
        cancel(slot.bookings.first())
        offer = offer_to(people[0], slot)
        assert api.as_(people[0]).delete(f"/bookings/{offer.pk}").status_code == 204
        work()
        assert statuses(slot) == ["passed", "offered", "waiting"]

    def test_an_offer_that_is_deleted_in_sql_goes_to_the_next_user(
        self, cancel, people, slot, queue
    ):
        cancel(slot.bookings.first())
        run("DELETE FROM bookings_booking WHERE id = %s", [offer_to(people[0], slot).pk])
        assert statuses(slot) == ["passed", "waiting", "waiting"]
        waitlist.offer_seats(at=timezone.now())
        assert statuses(slot) == ["passed", "offered", "waiting"]

    def test_anyone_can_book_a_seat_that_the_last_waiting_user_declined(
        self, api, cancel, people, slot, queue
    ):
        for user in people[1:]:
            user.waitlist_entries.all().delete()
        cancel(slot.bookings.first())
        cancel(offer_to(people[0], slot))
        response = api.as_(UserFactory()).post("/bookings", {"slot_id": str(slot.pk)})
        assert response.status_code == 201

    def test_a_user_who_declined_an_offer_joins_again_at_the_end_of_the_queue(
        self, cancel, join, people, slot, queue
    ):
        cancel(slot.bookings.first())
        cancel(offer_to(people[0], slot))
        assert join(people[0], slot).json()["position"] == 2

    def test_a_user_whose_offer_has_expired_can_join_again_before_a_job_ends_the_offer(
        self, cancel, join, people, slot, queue
    ):
        cancel(slot.bookings.first())
        with time_machine.travel(timezone.now() + 2 * HOUR):
            assert join(people[0], slot).json()["position"] == 3

    def test_two_freed_seats_are_offered_to_the_first_two_users(
        self, api, people, slot, queue, work
    ):
        for booking in slot.bookings.all():
            api.as_(booking.user).patch(f"/bookings/{booking.pk}", {"status": "cancelled"})
        work()
        assert statuses(slot) == ["offered", "offered", "waiting"]
        assert {offer_to(user, slot).seat for user in people[:2]} == {1, 2}

    def test_moving_a_booking_away_frees_a_seat(self, api, people, service, slot, queue, work):
        other = SlotFactory(service=service, start_time=TUESDAY + DAY)
        booking = slot.bookings.first()
        response = api.as_(booking.user).patch(
            f"/bookings/{booking.pk}", {"slot_id": str(other.pk)}
        )
        assert response.status_code == 200
        work()
        assert statuses(slot) == ["offered", "waiting", "waiting"]

    def test_deleting_a_booking_frees_a_seat(self, api, people, slot, queue, work):
        booking = slot.bookings.first()
        api.as_(booking.user).delete(f"/bookings/{booking.pk}")
        work()
        assert statuses(slot) == ["offered", "waiting", "waiting"]

    def test_a_hold_that_expires_frees_a_seat(self, people, slot, queue, work):
        with disabled_trigger("bookings_booking", "booking_transition"):
            Booking.objects.filter(slot=slot, seat=2).update(
                status="held", hold_expires_at=timezone.now()
            )
        expire_bookings(at=timezone.now())
        work()
        assert statuses(slot) == ["offered", "waiting", "waiting"]
        assert offer_to(people[0], slot).seat == 2

    def test_raising_the_capacity_offers_the_new_seats(
        self, api, provider, people, slot, queue, work
    ):
        response = api.as_(provider).patch(f"/slots/{slot.pk}", {"capacity": 4})
        assert (response.status_code, response.json()["seats_left"]) == (200, 0)
        work()
        assert statuses(slot) == ["offered", "offered", "waiting"]

    def test_lowering_the_capacity_offers_no_seat(self, api, provider, cancel, people, slot, queue):
        Booking.objects.filter(slot=slot, seat=1).update(status="cancelled")
        assert api.as_(provider).patch(f"/slots/{slot.pk}", {"capacity": 1}).status_code == 200
        assert waitlist.offer_seats(at=timezone.now()) == 0
        assert statuses(slot) == ["waiting", "waiting", "waiting"]

    def test_an_offer_expires_no_later_than_the_start_of_the_slot(
        self, cancel, people, slot, queue
    ):
        with time_machine.travel(TUESDAY - 10 * MINUTE):
            cancel(slot.bookings.first())
            assert offer_to(people[0], slot).hold_expires_at == TUESDAY

    @pytest.mark.parametrize("minutes", [60, 0])
    def test_the_waitlist_ends_when_it_is_too_late_to_book(self, slot, service, queue, minutes):
        service.min_notice_minutes = minutes
        service.save()
        Booking.objects.filter(slot=slot, seat=1).update(status="cancelled")
        with time_machine.travel(TUESDAY - minutes * MINUTE + MINUTE):
            assert waitlist.offer_seats(at=timezone.now()) == 0
        assert statuses(slot) == ["passed", "passed", "passed"]
        assert not slot.bookings.filter(status="held").exists()

    def test_users_keep_waiting_while_the_service_is_inactive(self, slot, service, queue):
        service.is_active = False
        service.save()
        Booking.objects.filter(slot=slot, seat=1).update(status="cancelled")
        assert waitlist.offer_seats(at=timezone.now()) == 0
        assert statuses(slot) == ["waiting", "waiting", "waiting"]

    def test_a_deactivated_user_is_passed_over(self, people, slot, queue):
        people[0].is_active = False
        people[0].save()
        Booking.objects.filter(slot=slot, seat=1).update(status="cancelled")
        assert waitlist.offer_seats(at=timezone.now()) == 1
        assert statuses(slot) == ["passed", "offered", "waiting"]

    def test_a_user_with_three_holds_is_still_offered_a_seat(self, people, slot, queue):
        for number in range(3):
            ends = timezone.now() + HOUR
            BookingFactory(user=people[0], status="held", hold_expires_at=ends, seat=number + 1)
        Booking.objects.filter(slot=slot, seat=1).update(status="cancelled")
        assert waitlist.offer_seats(at=timezone.now()) == 1
        assert offer_to(people[0], slot)

    def test_the_periodic_job_offers_a_seat_that_no_event_announced(self, people, slot, queue):
        Booking.objects.filter(slot=slot, seat=1).update(status="cancelled")
        app.tasks["bookings.offer"](timestamp=0)
        assert statuses(slot) == ["offered", "waiting", "waiting"]

    def test_the_command_offer_seats_offers_seats(self, capsys, slot, queue):
        Booking.objects.filter(slot=slot, seat=1).update(status="cancelled")
        call_command("offer_seats")
        assert capsys.readouterr().out == "1 seats offered.\n"
        assert statuses(slot) == ["offered", "waiting", "waiting"]

    def test_offering_the_seats_twice_makes_one_hold(self, cancel, slot, queue, work):
        cancel(slot.bookings.first())
        work()
        assert waitlist.offer_seats(at=timezone.now()) == 0
        assert slot.bookings.filter(status="held").count() == 1

    def test_no_job_is_enqueued_if_nobody_waits(self, api, slot, work):
        booking = slot.bookings.first()
        api.as_(booking.user).patch(f"/bookings/{booking.pk}", {"status": "cancelled"})
        work()
        assert not ProcrastinateJob.objects.filter(task_name="bookings.offer_seats").exists()


class TestBeforeASeatIsOffered:
    """A free seat belongs to the waitlist even before a worker offers it."""

    @pytest.fixture
    def freed(self, slot, queue):
        """The slot with one free seat, for which three users are waiting."""
        Booking.objects.filter(slot=slot, seat=2).update(status="cancelled")
        return slot

    def book(self, api, user, slot, **more):
        return api.as_(user).post("/bookings", {"slot_id": str(slot.pk), **more})

    def test_other_users_see_no_free_seat(self, api, freed):
        assert api.get(f"/slots/{freed.pk}").json()["seats_left"] == 0
        assert api.get("/slots", {"available": "true"}).json()["results"] == []
        shown = api.get(
            f"/services/{freed.service_id}/availability", {"from": f"{TUESDAY:%Y-%m-%dT%H:%M:%SZ}"}
        )
        assert shown.json()["times"] == []

    def test_other_users_cannot_book_the_seat(self, api, freed):
        problem(self.book(api, UserFactory(), freed), 409, "slot_full")
        problem(self.book(api, UserFactory(), freed, hold=True), 409, "slot_full")

    def test_other_users_cannot_move_a_booking_to_the_seat(self, api, service, freed):
        other = seated(SlotFactory(service=service, start_time=TUESDAY + DAY), 1)
        response = api.as_(other.user).patch(f"/bookings/{other.pk}", {"slot_id": str(freed.pk)})
        problem(response, 409, "slot_full")

    def test_the_second_user_cannot_book_the_seat(self, api, people, freed):
        problem(self.book(api, people[1], freed), 409, "slot_full")

    def test_the_first_user_can_book_the_seat(self, api, seen, people, freed):
        response = self.book(api, people[0], freed)
        assert (response.status_code, response.json()["seat"]) == (201, 2)
        entry = seen(people[0], freed)[0]
        assert (entry["status"], entry["booking_id"]) == ("booked", response.json()["id"])
        assert waitlist.offer_seats(at=timezone.now()) == 0

    def test_the_first_user_can_hold_the_seat(self, api, people, freed):
        response = self.book(api, people[0], freed, hold=True)
        assert response.json()["status"] == "held"
        assert statuses(freed) == ["offered", "waiting", "waiting"]

    def test_the_first_user_can_move_a_booking_to_the_seat(self, api, service, people, freed):
        elsewhere = SlotFactory(service=service, start_time=TUESDAY + DAY)
        booking = seated(elsewhere, 1, user=people[0])
        response = api.as_(people[0]).patch(f"/bookings/{booking.pk}", {"slot_id": str(freed.pk)})
        assert (response.status_code, response.json()["seat"]) == (200, 2)
        assert statuses(freed) == ["booked", "waiting", "waiting"]

    def test_anyone_can_book_a_free_seat_that_no_waiting_user_needs(self, api, freed):
        Slot.objects.filter(pk=freed.pk).update(capacity=5)
        assert api.get(f"/slots/{freed.pk}").json()["seats_left"] == 1
        response = self.book(api, UserFactory(), freed)
        # Seats 2, 3 and 4 are kept for the three users who are waiting.
        assert (response.status_code, response.json()["seat"]) == (201, 5)
        problem(self.book(api, UserFactory(), freed), 409, "slot_full")
        assert waitlist.offer_seats(at=timezone.now()) == 3


class TestTheSlot:
    def test_cancelling_a_slot_ends_its_waitlist(self, api, provider, cancel, slot, queue, work):
        cancel(slot.bookings.first())
        response = api.as_(provider).patch(f"/slots/{slot.pk}", {"status": "cancelled"})
        assert response.status_code == 200
        assert statuses(slot) == ["passed", "passed", "passed"]
        work()
        assert not slot.bookings.filter(active=True).exists()

    def test_a_slot_with_only_a_waitlist_can_be_deleted(self, api, provider, service):
        slot = SlotFactory(service=service, start_time=TUESDAY)
        WaitlistEntryFactory(slot=slot, user=UserFactory())
        assert api.as_(provider).delete(f"/slots/{slot.pk}").status_code == 204
        assert not WaitlistEntry.objects.exists()

    def test_a_deleted_slot_has_no_seats_to_offer(self, slot, queue):
        Booking.objects.filter(slot=slot).delete()
        ids = [str(slot.pk)]
        slot.delete()
        assert waitlist.offer_seats(slot_ids=ids, at=timezone.now()) == 0


# Inside the transaction of an ordinary test, a booking would also need queries for a savepoint.
@pytest.mark.django_db(transaction=True)
@pytest.mark.one_server("counts statements, and a cluster needs more of them")
def test_booking_a_slot_takes_three_queries_while_users_wait(api, slot, queue):
    user = UserFactory()
    Slot.objects.filter(pk=slot.pk).update(capacity=9)
    client = api.as_(user)
    with CaptureQueriesContext(connection) as captured:
        assert client.post("/bookings", {"slot_id": str(slot.pk)}).status_code == 201
    assert len(captured) == 3


def test_admins_see_waitlists_in_the_admin_site(client, slot, queue, people):
    client.force_login(AdminFactory())
    page = client.get("/admin/bookings/waitlistentry/")
    assert page.status_code == 200
    assert people[0].email in page.content.decode()
    shown = client.get(f"/admin/bookings/waitlistentry/{queue[0]['id']}/change/")
    assert shown.status_code == 200
    assert b'name="_save"' not in shown.content
    account = f"/admin/accounts/user/{people[0].pk}/change/"
    assert account in shown.content.decode()
    erase_user(user_id=people[0].pk, actor=AdminFactory(), at=timezone.now())
    text = client.get(f"/admin/bookings/waitlistentry/{queue[0]['id']}/change/").content.decode()
    assert "a former user" in text
    assert account not in text
