"""The search for bookings by names, titles of services, email addresses and phone numbers."""

import re

from django.db.models import Q, QuerySet

from accounts.models import FEWEST_DIGITS, User, digits_of
from bookings.models import HAS_ATTENDEE, Booking
from bookit.adminsite.search import all_in, found_in
from catalog.models import Calendar, Service


def found_by(words: str, *, among: QuerySet[Booking]) -> tuple[QuerySet[Booking], bool]:
    """Return the bookings whose attendee, user, service or calendar matches all of `words`.

    Case does not matter. The address of a user who has no mailbox does not count.

    Returns:
        the bookings, and whether there are few; see `found_in`.
    """
    among = among.alias(digits=digits_of("attendee_phone"))
    people = User.objects.alias(digits=digits_of("phone"))
    people = people.filter(person(words, "name", "email"))
    titled = Service.objects.filter(all_in(words, ["title"]))
    named = Calendar.objects.filter(all_in(words, ["name"]))
    conditions = [
        Q(user__in=people.values("pk")),
        Q(HAS_ATTENDEE) & person(words, "attendee_name", "attendee_email"),
        Q(service__in=titled.values("pk")),
        Q(calendar__in=named.values("pk")),
    ]
    return found_in(among, conditions)


def person(words: str, *columns: str) -> Q:
    """Return the condition that `words` match the name, email address or phone number of a row.

    Only the digits of phone numbers are compared, and only if `words` looks like a part of one and
    has at least `FEWEST_DIGITS` digits.

    Args:
        columns: the columns of the name and the email address. The rows must also have `digits`,
            the digits of the phone number.
    """
    found = all_in(words, columns)
    digits = re.sub(r"[^0-9]", "", words)
    if len(digits) >= FEWEST_DIGITS and re.fullmatch(r"[0-9+ ()./-]+", words):
        found |= Q(digits__contains=digits)
    return found
