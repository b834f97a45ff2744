"""The clients: each role does random actions and records the responses."""

import random
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import httpx

from bookit.tests.chaos.ledger import Closure, Ledger
from bookit.tests.chaos.town import CLOSES, EVERY_DAY, OPENS, Booking, Person, Service, Town

# The maximum number of seconds until a response, even while processes are stopped or killed.
MAX_SECONDS = 15.0
# Statuses that any request may get at any time, because of a fault. A 429 is not among them: there
# are no rate limits.
ALWAYS = {503}


class Actor(threading.Thread):
    """A client that does one random action after another until `stopping` is set."""

    role = "anonymous"

    def __init__(
        self, base: str, town: Town, ledger: Ledger, person: Person | None, seed: int
    ) -> None:
        super().__init__(name=f"{self.role}-{seed}")
        self.town, self.ledger = town, ledger
        self.person = person
        self.rng = random.Random(seed)
        self.stopping = threading.Event()
        headers = {"Authorization": f"Bearer {person.token}"} if person else {}
        self.client = httpx.Client(base_url=base, headers=headers, timeout=MAX_SECONDS + 5)
        self.base = base

    def run(self) -> None:
        """Act until `stopping` is set; record every exception as a bug."""
        actions, weights = zip(*self.actions(), strict=True)
        with self.client:
            while not self.stopping.is_set():
                try:
                    self.rng.choices(actions, weights)[0]()
                except Exception:
                    self.ledger.bugs.append(f"{self.name}: {traceback.format_exc()}")

    def actions(self) -> list[tuple[Callable[[], None], int]]:
        """Return the possible actions with their relative frequencies."""
        return [
            (self.look_at_the_catalog, 6),
            (self.look_at_free_times, 4),
            (self.look_at_the_pages, 1),
        ]

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        allowed: set[int] | None = None,
        **options: Any,
    ) -> tuple[int, Any]:
        """Send a request, and return the status and the body of the response.

        The status is 0 if there is no response. The ledger records a bug for a status that is in
        neither `allowed` nor `ALWAYS`, for a server error other than 503, and for an error that is
        not a problem document. It also records a bug if the request takes more than `MAX_SECONDS`,
        with or without a response. If `allowed` is None, every status below 500 is allowed.
        """
        if body is not None:
            options["json"] = body
        begun = time.monotonic()
        try:
            response = self.client.request(method, path, **options)
        except httpx.TransportError as error:
            seconds = time.monotonic() - begun
            with self.ledger.lock:
                self.ledger.broken += 1
                if seconds > MAX_SECONDS:
                    self.ledger.bugs.append(f"{method} {path}: {error!r} after {seconds:.1f} s")
            return 0, None
        seconds = time.monotonic() - begun
        status, kind = response.status_code, response.headers.get("content-type", "")
        exchange = f"{self.role}: {method} {path} {str(body)[:200]} returned {status}"
        with self.ledger.lock:
            self.ledger.statuses[self.role, status] += 1
            self.ledger.slowest = max(self.ledger.slowest, (seconds, f"{method} {path}: {status}"))
            if (status >= 500 and status != 503) or (
                allowed is not None and status not in allowed | ALWAYS
            ):
                self.ledger.bugs.append(f"{exchange}: {response.text[:300]}")
            if seconds > MAX_SECONDS:
                self.ledger.bugs.append(f"{exchange} after {seconds:.1f} s")
            if status >= 400 and kind != "application/problem+json":
                self.ledger.bugs.append(f"{exchange}, as {kind}")
        return status, response.json() if "json" in kind else response.text

    # GET requests that anybody may send

    def look_at_the_catalog(self) -> None:
        service = self.rng.choice(self.town.services)
        path = self.rng.choice(
            [
                "/services",
                "/services?q=hour",
                "/services?q=tabel",  # The search tolerates this misspelling of "table".
                f"/services?q={self.rng.choice('abcxyz')}",
                "/services?ordering=-price&limit=100",
                f"/services/{service.id}",
                f"/services/{service.id}/reviews",
                "/calendars",
                f"/calendars/{service.calendar_id}",
                "/slots?available=true",
                f"/slots?service_id={service.id}",
                "/reviews",
            ]
        )
        self.send("GET", path, allowed={200})

    def look_at_free_times(self) -> None:
        some = self.rng.sample(self.town.services, 4)
        day = self.town.some_start(self.rng)[:10]
        many = "&".join(f"service_id={service.id}" for service in some)
        path = self.rng.choice(
            [
                f"/services/{some[0].id}/availability",
                f"/services/{some[0].id}/availability?from={day}&tz=Asia/Kathmandu",
                f"/availability?{many}",
                f"/services?available_from={day}&available_to={day}",
            ]
        )
        self.send("GET", path, allowed={200})

    def look_at_the_pages(self) -> None:
        path = self.rng.choice(["/errors", "/openapi.json", "/health", "/health/ready", "/docs"])
        self.send("GET", path, allowed={200})


class Visitor(Actor):
    """A client without an account."""

    def actions(self) -> list[tuple[Callable[[], None], int]]:
        """Add registration, and actions that must be refused because they need an account."""
        return [*super().actions(), (self.try_without_an_account, 1), (self.register, 1)]

    def try_without_an_account(self) -> None:
        method, path = self.rng.choice(
            [("GET", "/me"), ("GET", "/bookings"), ("POST", "/slots"), ("GET", "/users")]
        )
        self.send(method, path, {} if method == "POST" else None, allowed={401})

    def register(self) -> None:
        email = f"visitor-{self.rng.getrandbits(40):x}@example.com"
        body = {"name": "A visitor", "email": email, "password": "seven quiet otters"}
        status, content = self.send("POST", "/auth/register", body, allowed={201})
        if status == 201:
            self.ledger.made["accounts_user"].add(content["id"])


class Troublemaker(Actor):
    """A client that sends invalid requests."""

    role = "troublemaker"

    def actions(self) -> list[tuple[Callable[[], None], int]]:
        """Return only invalid requests."""
        return [
            (self.send_invalid_body, 4),
            (self.request_invalid_path, 4),
            (self.hang, 1),
        ]

    def send_invalid_body(self) -> None:
        path = self.rng.choice(["/bookings", "/auth/login", "/slots", "/reviews", "/auth/register"])
        content = self.rng.choice(
            [
                b"{",
                b"[[[[" * 5000,
                b"null",
                b'{"start_time": 1e400}',
                b'{"service_ids": "x"}',
                b'{"email": "\xff\xfe"}',
                b'{"email": "a\\u0000b@example.com", "password": "x"}',
                b'{"slot_id": {"$ne": null}}',
            ]
        )
        headers = {"Content-Type": self.rng.choice(["application/json", "text/plain", "a; b=;"])}
        self.send("POST", path, content=content, headers=headers, allowed={400, 401, 415})

    def request_invalid_path(self) -> None:
        path = self.rng.choice(
            [
                "/services?limit=-1",
                "/services?offset=99999999999999999999",
                "/services?ordering=" + ",".join(["title"] * 200),
                "/services?cursor=x",
                "/services/not-an-id",
                "/services/00000000-0000-0000-0000-000000000000",
                "/availability?from=2026-02-30",
                "/slots?date=tomorrow",
                "/services?q=%00",
                "/nowhere",
                "/bookings/00000000-0000-0000-0000-000000000000.ics?token=x",
                "/admin/bookings/booking/nonsense/change/",
            ]
        )
        token = {"Authorization": self.rng.choice(["Bearer x", "Bearer a.b.c", "Basic eA=="])}
        headers = token if self.rng.random() < 0.5 else {}
        if path.startswith("/admin"):
            with suppress(httpx.TransportError):
                status = self.client.get(path, headers=headers).status_code
                if status >= 500 and status != 503:
                    self.ledger.bugs.append(f"GET {path} returned {status}")
            return
        self.send("GET", path, headers=headers, allowed={400, 401, 404})

    def hang(self) -> None:
        """Open a connection, send half a request or nothing, and leave it open for a while."""
        host, _, port = self.base.removeprefix("http://").partition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=2) as half:
            half.sendall(
                self.rng.choice(
                    [b"", b"GET / HT", b"POST /bookings HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"]
                )
            )
            self.stopping.wait(self.rng.uniform(0.1, 2))


class Member(Actor):
    """A client with an account."""

    person: Person

    def record(self, booking: Booking, kind: str) -> None:
        """Record an acknowledged change of a booking."""
        self.ledger.events.append((booking.id, kind, self.person.id))

    def change_state(self, booking: Booking, status: str, path: str = "/status") -> int:
        """Change a booking's status, and record the change if it is acknowledged.

        Return the status code of the response; 0 if there is none.

        Args:
            path: what follows the URL of the booking; empty for customers, who change the booking
                itself.
        """
        body = {"status": status}
        code, content = self.send("PATCH", f"/bookings/{booking.id}{path}", body)
        if code == 200:
            # Only holds are changed to `pending`. This books the hold, so the event is a creation.
            kind = "created" if status == "pending" else status
            self.record(booking, f"booking.{kind}")
            # If the service requires no confirmation, its holds become confirmed, not pending.
            expected = {status, "confirmed"} if status == "pending" else {status}
            if content["status"] not in expected:
                self.ledger.bugs.append(f"{booking.id} is {content['status']}, not {status}")
        return code


class User(Member):
    """A client that books."""

    role = "user"

    def actions(self) -> list[tuple[Callable[[], None], int]]:
        """Add the actions of people who book."""
        return [
            *super().actions(),
            (self.book, 14),
            (self.book_any, 2),
            (self.book_a_seat, 6),
            (self.hold, 4),
            (self.reschedule, 6),
            (self.cancel, 4),
            (self.delete, 2),
            (self.read_mine, 4),
            (self.access_objects_of_others, 4),
            (self.join_waitlist, 3),
            (self.review, 3),
            (self.change_my_name, 1),
            (self.send_too_many_items, 1),
        ]

    def create(self, body: dict[str, Any], service: Service) -> Booking | None:
        """Book. Record and return the booking if it is acknowledged; otherwise, return None."""
        if self.rng.random() < 0.3:
            body["notes"] = "I may be some minutes late."
        status, content = self.send("POST", "/bookings", body, allowed={201, 400, 409})
        if status in (0, 503):
            with self.ledger.lock:
                self.ledger.unclear_requests["POST /bookings"] += 1
        if status != 201:
            return None
        if content["service_id"] != service.id:
            service = next(each for each in self.town.services if each.id == content["service_id"])
        start_time = datetime.fromisoformat(content["start_time"])
        booking = Booking(content["id"], self.person, service, start_time)
        self.ledger.made["bookings_booking"].add(booking.id)
        self.record(booking, "booking.held" if content["status"] == "held" else "booking.created")
        with self.town.lock:
            self.town.bookings.append(booking)
        return booking

    def open_service(self) -> Service:
        """Return a service that is booked without slots."""
        return self.rng.choice([each for each in self.town.services if each.mode == "open"])

    def book(self) -> None:
        service = self.open_service()
        start = self.town.some_start(self.rng)
        self.create({"service_id": service.id, "start_time": start}, service)

    def book_any(self) -> None:
        services = self.rng.sample([s for s in self.town.services if s.mode == "open"], 3)
        start = self.town.some_start(self.rng)
        ids = [each.id for each in services]
        self.create({"service_ids": ids, "start_time": start}, services[0])

    def book_a_seat(self) -> None:
        slot = self.town.some(self.town.slots, self.rng)
        if slot:
            slot_id, service = slot
            self.create({"slot_id": slot_id}, service)

    def hold(self) -> None:
        service = self.open_service()
        start = self.town.some_start(self.rng)
        held = self.create({"service_id": service.id, "start_time": start, "hold": True}, service)
        if held and self.rng.random() < 0.7:
            self.change_state(held, self.rng.choice(["pending", "cancelled"]), path="")

    def mine(self) -> Booking | None:
        """Return one of the person's own bookings, or None."""
        with self.town.lock:
            own = [each for each in self.town.bookings if each.user is self.person]
        return self.rng.choice(own) if own else None

    def reschedule(self) -> None:
        booking = self.mine()
        if booking is None:
            return
        start = self.town.some_start(self.rng)
        body = {"start_time": start}
        status, content = self.send(
            "PATCH", f"/bookings/{booking.id}", body, allowed={200, 400, 404, 409}
        )
        if status in (0, 503):
            booking.start_time = None
        elif status == 200:
            known = datetime.fromisoformat(content["start_time"])
            if known != datetime.fromisoformat(start):
                self.ledger.bugs.append(f"{booking.id} was moved to {start}, but is at {known}")
            # A booking that is moved to its present start does not change, and gets no event.
            if booking.start_time not in (None, known):
                self.record(booking, "booking.rescheduled")
            booking.start_time = known

    def cancel(self) -> None:
        booking = self.mine()
        if booking:
            self.change_state(booking, "cancelled", path="")

    def delete(self) -> None:
        booking = self.mine()
        if booking is None:
            return
        self.ledger.dropped.add(booking.id)
        status, _ = self.send("DELETE", f"/bookings/{booking.id}", allowed={204, 404, 409})
        if status == 204:
            self.record(booking, "booking.deleted")

    def read_mine(self) -> None:
        booking = self.mine()
        paths = ["/bookings", "/me", "/bookings?status=pending,confirmed", "/bookings?cursor="]
        if booking:
            one = f"/bookings/{booking.id}"
            paths += [one, f"{one}/history", f"{one}.ics"]
        self.send("GET", self.rng.choice(paths), allowed={200, 404})

    def access_objects_of_others(self) -> None:
        booking = self.town.some(self.town.bookings, self.rng)
        if booking is None or booking.user is self.person:
            return
        path = f"/bookings/{booking.id}"
        method, path, body = self.rng.choice(
            [
                ("GET", path, None),
                ("DELETE", path, None),
                ("PATCH", path, {"status": "cancelled"}),
                ("PATCH", path, {"status": "cancelled", "start_time": "nonsense"}),
                ("PATCH", f"{path}/status", {"status": "confirmed"}),
                ("GET", f"{path}/history", None),
                ("PATCH", f"/services/{booking.service.id}", {"price": "1.00"}),
                ("DELETE", f"/calendars/{booking.service.calendar_id}", None),
            ]
        )
        self.send(method, path, body, allowed={403, 404})

    def join_waitlist(self) -> None:
        slot = self.town.some(self.town.slots, self.rng)
        if slot is None:
            return
        slot_id, _ = slot
        path = f"/slots/{slot_id}/waitlist"
        status, content = self.send("POST", path, {}, allowed={201, 200, 404, 409, 400})
        if status == 201 and self.rng.random() < 0.5:
            self.send("DELETE", f"{path}/{content['id']}", allowed={204, 404, 409})

    def review(self) -> None:
        booking = self.town.some(self.town.completed, self.rng)
        if booking is None:
            return
        body = {"booking_id": booking.id, "rating": self.rng.randint(1, 5)}
        status, content = self.send("POST", "/reviews", body, allowed={201, 400, 403, 404, 409})
        if status == 201:
            self.ledger.made["reviews_review"].add(content["id"])
            if self.rng.random() < 0.3:
                self.ledger.dropped.add(content["id"])
                self.send("DELETE", f"/reviews/{content['id']}", allowed={204})

    def send_too_many_items(self) -> None:
        body = {"service_ids": ["x"] * 100_000, "start_time": "2030-01-01T00:00:00Z"}
        self.send("POST", "/bookings", body, allowed={400})

    def change_my_name(self) -> None:
        name = f"User {self.rng.getrandbits(20)}"
        possible = self.ledger.names.get(self.person.id, [self.person.name])
        status, _ = self.send("PATCH", "/me", {"name": name}, allowed={200})
        # Without a 200, the name may or may not have changed.
        self.ledger.names[self.person.id] = [name] if status == 200 else [*possible, name]


class Provider(Member):
    """A provider, who publishes slots."""

    role = "provider"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.services = [each for each in self.town.services if each.provider is self.person]
        self.time_off: list[tuple[str, str]] = []

    def actions(self) -> list[tuple[Callable[[], None], int]]:
        """Add the actions of providers."""
        return [
            *super().actions(),
            (self.publish, 5),
            (self.change_a_slot, 2),
            (self.decide, 14),
            (self.take_time_off, 3),
            (self.delete_time_off, 3),
            (self.change_hours, 1),
            (self.change_a_service, 1),
            (self.read_mine, 3),
            (self.access_objects_of_others, 2),
        ]

    def some_service(self) -> Service:
        """Return one of the provider's own services."""
        return self.rng.choice(self.services)

    def publish(self) -> None:
        service = next(each for each in self.services if each.mode == "slots")
        body = {"service_id": service.id, "start_time": self.town.some_start(self.rng)}
        if self.rng.random() < 0.2:
            body["rrule"] = "FREQ=DAILY;COUNT=3"
        status, content = self.send("POST", "/slots", body, allowed={201, 400, 409})
        if status == 201:
            for slot in content.get("results", [content]):
                self.ledger.made["bookings_slot"].add(slot["id"])
                with self.town.lock:
                    self.town.slots.append((slot["id"], service))

    def change_a_slot(self) -> None:
        slot = self.town.some(self.town.slots, self.rng)
        if slot is None:
            return
        slot_id, service = slot
        path = f"/slots/{slot_id}"
        if service.provider is not self.person:
            self.send("PATCH", path, {"capacity": 9}, allowed={403, 404})
            return
        what = self.rng.choice(["resize", "cancel", "delete"])
        if what == "resize":
            capacity = self.rng.randint(1, 8)
            self.send("PATCH", path, {"capacity": capacity}, allowed={200, 400, 404, 409})
        elif what == "cancel":
            status, _ = self.send("PATCH", path, {"status": "cancelled"}, allowed={200, 404, 409})
            if status == 200:
                self.ledger.cancelled_slots.add(slot_id)
        else:
            self.ledger.dropped.add(slot_id)
            self.send("DELETE", path, allowed={204, 404, 409})

    def decide(self) -> None:
        booking = self.town.some(self.town.bookings, self.rng)
        if booking is None or booking.service.provider is not self.person:
            return
        status = self.rng.choice(["confirmed", "confirmed", "completed", "no_show", "cancelled"])
        if self.change_state(booking, status) == 200 and status == "completed":
            with self.town.lock:
                self.town.completed.append(booking)

    def record_closure(self, calendar_id: str, status: int, content: Any, **closure: Any) -> None:
        """Record the affected bookings in a response to new time off or new opening hours.

        If there is no response, or a 503, the affected bookings are unknown.
        """
        if status in (0, 503):
            self.ledger.unclear_calendars.add(calendar_id)
        elif status in (200, 201):
            affected = content["affected_bookings"]
            ids = frozenset(str(each) for each in affected["ids"])
            self.ledger.closures.append(
                Closure(calendar_id, ids, len(ids) == affected["count"], **closure)
            )

    def take_time_off(self) -> None:
        calendar = self.some_service().calendar_id
        start = self.town.some_start(self.rng)
        end = datetime.fromisoformat(start) + timedelta(hours=self.rng.randint(1, 4))
        body = {"start_time": start, "end_time": end.isoformat(), "reason": "Dentist"}
        status, content = self.send("POST", f"/calendars/{calendar}/time-off", body, allowed={201})
        time_off = content["id"] if status == 201 else ""
        self.record_closure(calendar, status, content, time_off_id=time_off)
        if time_off:
            self.ledger.made["catalog_timeoff"].add(time_off)
            self.time_off.append((calendar, time_off))

    def delete_time_off(self) -> None:
        if self.time_off:
            calendar, time_off = self.time_off.pop(self.rng.randrange(len(self.time_off)))
            self.ledger.dropped.add(time_off)
            self.send("DELETE", f"/calendars/{calendar}/time-off/{time_off}", allowed={204, 404})

    def change_hours(self) -> None:
        calendar = self.some_service().calendar_id
        closes = self.rng.choice([CLOSES, CLOSES, CLOSES - 3])
        hours = [{**day, "closes": f"{closes:02}:00"} for day in EVERY_DAY]
        body = {"opening_hours": hours}
        status, content = self.send("PATCH", f"/calendars/{calendar}", body, allowed={200})
        spans = tuple((day, OPENS * 60, closes * 60) for day in range(7))
        self.record_closure(calendar, status, content, hours=spans)

    def change_a_service(self) -> None:
        choices: list[dict[str, Any]] = [{"price": "25.00"}, {"is_active": False}]
        body = self.rng.choice(choices)
        self.send("PATCH", f"/services/{self.some_service().id}", body, allowed={200})
        if "is_active" in body:
            self.stopping.wait(0.2)
            # Switch on all services, because an earlier request to switch one on may have failed.
            for service in self.services:
                self.send("PATCH", f"/services/{service.id}", {"is_active": True}, allowed={200})

    def read_mine(self) -> None:
        calendar = self.some_service().calendar_id
        path = self.rng.choice(
            [
                "/bookings?scope=provider",
                f"/calendars/{calendar}/time-off",
                f"/calendars/{calendar}/feed",
            ]
        )
        self.send("GET", path, allowed={200})

    def access_objects_of_others(self) -> None:
        foreign = [each for each in self.town.services if each.provider is not self.person]
        service = self.rng.choice(foreign)
        method, path, body = self.rng.choice(
            [
                ("PATCH", f"/services/{service.id}", {"is_active": False}),
                ("PATCH", f"/calendars/{service.calendar_id}", {"opening_hours": "nonsense"}),
                ("GET", f"/calendars/{service.calendar_id}/feed", None),
                ("GET", "/users", None),
                ("POST", "/webhooks", {}),
            ]
        )
        self.send(method, path, body, allowed={403})


class Admin(Member):
    """An admin."""

    role = "admin"

    def actions(self) -> list[tuple[Callable[[], None], int]]:
        """Add the actions of admins."""
        return [
            *super().actions(),
            (self.decide, 8),
            (self.read_everything, 5),
            (self.patch_an_account_without_change, 1),
            (self.delete_a_booking, 1),
        ]

    def decide(self) -> None:
        booking = self.town.some(self.town.bookings, self.rng)
        if booking:
            status = self.rng.choice(["confirmed", "confirmed", "completed", "cancelled"])
            if self.change_state(booking, status) == 200 and status == "completed":
                with self.town.lock:
                    self.town.completed.append(booking)

    def read_everything(self) -> None:
        path = self.rng.choice(
            ["/bookings", "/bookings?cursor=&limit=100", "/users", "/users?q=user", "/webhooks"]
        )
        self.send("GET", path, allowed={200})

    def patch_an_account_without_change(self) -> None:
        """Send a value that the account already has, because other clients use the account."""
        person = self.rng.choice(self.town.people["user"])
        body = self.rng.choice([{"role": "user"}, {"is_active": True}])
        self.send("PATCH", f"/users/{person.id}", body, allowed={200})

    def delete_a_booking(self) -> None:
        booking = self.town.some(self.town.bookings, self.rng)
        if booking is None:
            return
        self.ledger.dropped.add(booking.id)
        status, _ = self.send("DELETE", f"/bookings/{booking.id}", allowed={204, 404})
        if status == 204:
            self.record(booking, "booking.deleted")


class Poller(Actor):
    """A client that polls `/events` instead of receiving webhooks."""

    role = "poller"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursor = ""
        self.seen: list[str] = []
        self.has_all = False

    def actions(self) -> list[tuple[Callable[[], None], int]]:
        """Return the only action of a poller."""
        return [(self.poll, 1)]

    def poll(self) -> None:
        """Read the next page of events. `has_all` is true if the page is empty."""
        status, content = self.send(
            "GET", "/events", params={"cursor": self.cursor, "limit": 100}, allowed={200}
        )
        if status == 200:
            self.seen += [each["id"] for each in content["results"]]
            self.cursor = content["cursor"]
        self.has_all = status == 200 and not content["results"]
        if status != 200 or self.has_all:
            self.stopping.wait(0.3)
