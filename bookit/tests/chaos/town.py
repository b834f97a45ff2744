"""The accounts, calendars and services of a simulated day, created through the API."""

import random
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

PASSWORD = "a quiet day by the lake"
USERS, PROVIDERS, ADMINS = 6, 3, 2
# Bookings start 3 to 12 days from now, between 8:00 and 18:00 UTC. At first, the calendars with
# opening hours are open between these times, and those without opening hours are always open.
FIRST_DAY, LAST_DAY = 3, 12
OPENS, CLOSES = 8, 18
EVERY_DAY = [
    {"weekday": day, "opens": f"{OPENS:02}:00", "closes": f"{CLOSES:02}:00"} for day in range(7)
]


@dataclass
class Person:
    """A signed-in account."""

    id: str
    email: str
    name: str
    role: str
    token: str


@dataclass
class Service:
    """A service and its provider."""

    id: str
    calendar_id: str
    provider: Person
    mode: str
    capacity: int


@dataclass
class Booking:
    """A booking, as the clients remember it.

    Args:
        start_time: None if it is unknown whether a request has moved the booking.
    """

    id: str
    user: Person
    service: Service
    start_time: datetime | None


@dataclass
class Town:
    """The people and services, and the latest slots and bookings, which all clients use."""

    people: dict[str, list[Person]] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    slots: deque[tuple[str, Service]] = field(default_factory=lambda: deque(maxlen=60))
    bookings: deque[Booking] = field(default_factory=lambda: deque(maxlen=150))
    completed: deque[Booking] = field(default_factory=lambda: deque(maxlen=40))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def some(self, items: deque[Any], rng: random.Random) -> Any | None:
        """Return a random item of `items`, or None."""
        with self.lock:
            return rng.choice(items) if items else None

    def some_start(self, rng: random.Random) -> str:
        """Return a start on the hour. All calendars are open then, until a provider closes them."""
        this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        start = this_hour + timedelta(days=rng.randint(FIRST_DAY, LAST_DAY))
        return start.replace(hour=rng.randrange(OPENS, CLOSES)).isoformat()


def build(base: str, admin_email: str) -> Town:
    """Create the town through the API at `base`. The existing admin gives accounts their roles."""
    town = Town()
    with httpx.Client(base_url=base, timeout=30) as client:

        def post(path: str, body: dict[str, Any], person: Person | None = None) -> dict[str, Any]:
            headers = {"Authorization": f"Bearer {person.token}"} if person else {}
            response = client.post(path, json=body, headers=headers)
            assert response.status_code in (200, 201), response.text
            found: dict[str, Any] = response.json()
            return found

        def sign_in(email: str) -> Person:
            found = post("/auth/login", {"email": email, "password": PASSWORD})
            return Person(
                *(found[field] for field in ("id", "email", "name", "role", "access_token"))
            )

        chief = sign_in(admin_email)
        for role, number in (("user", USERS), ("provider", PROVIDERS), ("admin", ADMINS - 1)):
            for which in range(number):
                email = f"{role}{which}@example.com"
                made = post(
                    "/auth/register",
                    {"name": f"{role.title()} {which}", "email": email, "password": PASSWORD},
                )
                if role != "user":
                    response = client.patch(
                        f"/users/{made['id']}",
                        json={"role": role},
                        headers={"Authorization": f"Bearer {chief.token}"},
                    )
                    assert response.status_code == 200, response.text
                town.people.setdefault(role, []).append(sign_in(email))
        town.people["admin"].append(chief)
        for provider in town.people["provider"]:
            calendar = post("/calendars", {"name": "A room", "opening_hours": EVERY_DAY}, provider)[
                "id"
            ]
            for more in (
                {"title": "Hour", "duration_minutes": 60, "calendar_id": calendar},
                {
                    "title": "Half an hour",
                    "duration_minutes": 30,
                    "calendar_id": calendar,
                    "buffer_after_minutes": 15,
                    "requires_confirmation": False,
                },
                {"title": "Table of three", "duration_minutes": 60, "capacity": 3},
                {"title": "Class", "duration_minutes": 60, "capacity": 4, "mode": "slots"},
            ):
                made = post("/services", {"price": "20.00", **more}, provider)
                town.services.append(
                    Service(
                        made["id"], made["calendar_id"], provider, made["mode"], made["capacity"]
                    )
                )
    return town
