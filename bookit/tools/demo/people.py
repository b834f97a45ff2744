"""Stores the users: the admin, the providers and the customers."""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count
from zoneinfo import ZoneInfo

from django.contrib.auth.hashers import make_password

from accounts.models import User
from bookit.tools.demo.chance import Chance
from bookit.tools.demo.entries import CalendarEntry, email_of
from bookit.tools.demo.town import Town
from bookit.tools.demo.window import DAYS_BEHIND, today

# The weight of the main customer. The weights of all other customers are from 0.5 to 1.5.
WEIGHT_OF_MAIN_CUSTOMER = 3.0

# The time that customers need from one appointment to the next.
WALK = timedelta(minutes=20)


@dataclass
class Customer:
    """A customer, with their visits and the times of their bookings.

    Args:
        child: the name of their child, who attends when they book a service for children.
        weight: how often they book, compared with other customers.
        visits: the calendars that they visit regularly, and the days of their visits: one before
            the first day of the demo, and all that they booked, even if cancelled or expired.
        busy: the periods that their bookings occupy, which must not overlap.
    """

    user: User
    is_man: bool
    child: str
    weight: float
    visits: dict[CalendarEntry, list[date]] = field(default_factory=dict)
    busy: list[tuple[datetime, datetime]] = field(default_factory=list)

    def day_of(self, moment: datetime) -> date:
        """Return the day of a moment in the town's time zone."""
        return moment.astimezone(ZoneInfo(self.user.timezone)).date()

    def can_come(
        self, calendar: CalendarEntry, start: datetime, end: datetime, *, days_apart: int
    ) -> bool:
        """Return whether the customer visits the calendar regularly and can come at this time.

        Args:
            days_apart: the minimum number of days between two visits.
        """
        visits = self.visits.get(calendar)
        if visits is None:
            return False
        on = self.day_of(start)
        return all(abs((on - day).days) >= days_apart for day in visits) and all(
            end + WALK <= begins or ends + WALK <= start for begins, ends in self.busy
        )


@dataclass(frozen=True)
class People:
    """Everybody except the admin.

    Args:
        providers: the owners of businesses, by email address.
        customers: all customers, with the main customer first.
    """

    providers: dict[str, User]
    customers: list[Customer]

    @property
    def main_customer(self) -> Customer:
        """The customer who books often, at the calendars in `regular_at`.

        A visitor of the demo who signs in as this customer sees many bookings.
        """
        return self.customers[0]


def store_people(town: Town, chance: Chance, *, at: datetime) -> People:
    """Store all users, and choose the regulars of each calendar."""
    # Each password is hashed once, not for each user, because hashing is slow on purpose.
    hashes = {role: make_password(password) for role, password in town.passwords.items()}
    # No phone number in Portugal begins with 900, so these numbers belong to nobody.
    phones = (f"+351 900 000 {number:03}" for number in count(1))

    def new_user(name: str, email: str, role: User.Role, *, days_ago: int) -> User:
        joined = chance.same_day(at - timedelta(days=days_ago))
        return User(
            id=chance.uuid(joined),
            name=name,
            email=email,
            phone=next(phones),
            role=role,
            password=hashes[role],
            timezone=chance.tz.key,
            created_at=joined,
        )

    def new_customer(name: str, email: str, *, is_man: bool) -> Customer:
        days_ago = chance.random.randint(60, 290)
        return Customer(
            user=new_user(name, email, User.Role.USER, days_ago=days_ago),
            is_man=is_man,
            child=f"{chance.random.choice(town.people.children)} {name.split()[-1]}",
            weight=chance.random.uniform(0.5, 1.5),
        )

    admin, main_customer = town.people.admin, town.people.main_customer
    users = [new_user(admin.name, admin.email, User.Role.ADMIN, days_ago=420)]
    providers: dict[str, User] = {}
    for business in town.businesses:
        days_ago = chance.random.randint(300, 400)
        providers[business.email] = new_user(
            business.owner, business.email, User.Role.PROVIDER, days_ago=days_ago
        )
    customers = [
        new_customer(main_customer.name, main_customer.email, is_man=False),
        *(new_customer(name, email_of(name), is_man=False) for name in town.people.women),
        *(new_customer(name, email_of(name), is_man=True) for name in town.people.men),
    ]
    customers[0].weight = WEIGHT_OF_MAIN_CUSTOMER
    _choose_regulars(town, customers, chance, at)
    users += [*providers.values(), *(customer.user for customer in customers)]
    User.objects.bulk_create(users)
    return People(providers, customers)


def _choose_regulars(town: Town, customers: list[Customer], chance: Chance, at: datetime) -> None:
    """Choose each calendar's regulars, and give them a visit before the first day of the demo."""
    main_customer, *others = customers
    for calendar in town.calendars:
        eligible = [each for each in others if each.is_man or not calendar.men_only]
        regulars = chance.random.sample(eligible, calendar.regulars)
        if calendar.name in town.people.main_customer.regular_at:
            regulars.append(main_customer)
        for customer in regulars:
            days_ago = DAYS_BEHIND + chance.random.randint(1, calendar.days_between_visits)
            customer.visits[calendar] = [today(at, chance.tz) - timedelta(days=days_ago)]
