"""Fills a database with the demo town."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime

from django.db import connection, transaction

from accounts.models import User
from bookings.events import suppress_follow_up
from bookit.tools.demo.calendars import store_calendars
from bookit.tools.demo.chance import Chance
from bookit.tools.demo.histories import store_histories
from bookit.tools.demo.people import store_people
from bookit.tools.demo.planning import store_bookings
from bookit.tools.demo.reviewing import store_reviews
from bookit.tools.demo.timetable import Timetable
from bookit.tools.demo.town import Town
from catalog.models import Service

# Locks the table of services until the transaction ends, so that no other process fills the
# database. Other connections can still read the table.
#
# Parameters: none.
# Columns: none.
LOCK_SERVICES = "LOCK TABLE catalog_service IN SHARE ROW EXCLUSIVE MODE"


class NotEmptyError(Exception):
    """The database is in use. Demo data goes into an empty database only."""


@transaction.atomic
def fill_with_demo(town: Town, *, at: datetime, say: Callable[[str], None]) -> None:
    """Store the town with its bookings around `at`, or nothing at all.

    Args:
        at: the present. The same moment gives the same town, except some ids.
        say: a function that is called with a line of text after each stage.

    Raises:
        NotEmptyError: the database contains services, or one of the town's users.
        TownError: BookIt refuses to store one of the town's entries.
    """
    _check_empty(town)
    # BookIt sends no emails or webhooks about invented bookings.
    suppress_follow_up()
    chance = Chance(town.settings.seed, town.settings.timezone)
    people = store_people(town, chance, at=at)
    say(f"People: 1 admin, {len(people.providers)} providers, {len(people.customers)} customers.")
    calendars = store_calendars(town, people, chance)
    services = sum(len(calendar.services) for calendar in calendars)
    say(f"Catalog: {len(calendars)} calendars, {services} services.")
    timetable = Timetable(town, chance, at=at)
    for calendar in calendars:
        timetable.store(calendar)
    say(f"Timetable: {timetable.slots} slots, {timetable.time_off} periods of time off.")
    drafts = store_bookings(town, people, calendars, chance, at=at)
    statuses = Counter(draft.booking.status for draft in drafts)
    counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    say(f"Bookings: {len(drafts)} ({counts}).")
    reviews = store_reviews(drafts, calendars, chance, at=at)
    comments = sum(bool(review.comment) for review in reviews)
    say(f"Reviews: {len(reviews)}, {comments} of them with a comment.")
    events = store_histories(drafts, reviews)
    say(f"Histories: {len(events)} events.")


def _check_empty(town: Town) -> None:
    """Refuse a database that is in use, and keep other processes from filling an empty database.

    Raises:
        NotEmptyError: the database contains services, or one of the town's users.
    """
    with connection.cursor() as cursor:
        # If two processes fill the database at once, the second process waits here. After that, it
        # finds the services that the first process has stored.
        cursor.execute(LOCK_SERVICES)
    if Service.objects.exists():
        raise NotEmptyError("There are services already.")
    taken = User.objects.filter(email__in=town.emails).order_by("email").first()
    if taken is not None:
        raise NotEmptyError(f"{taken.email} has an account already.")
