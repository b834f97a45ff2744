"""The search for bookings by what people say: names, email addresses and phone numbers."""

import re
from collections.abc import Iterable
from typing import Any

from django.db.models import Q, QuerySet

from accounts.models import FEWEST_DIGITS, User, digits_of
from bookings.models import HAS_ATTENDEE, Booking
from catalog.models import Calendar, Service

# An index on groups of three letters finds a word of fewer letters only at the beginning of a word.
FEWEST_LETTERS = 3


def found_by(words: str) -> QuerySet[Any, Any]:
    """Return the ids of the bookings whose attendee, customer, service or calendar has all `words`.

    Case does not matter. Of a phone number, only the digits count.

    Each table is searched through its own index, and the ids are put together. One condition with
    OR over the joined tables would read every booking.
    """
    people = User.objects.annotate(digits=digits_of("phone"))
    attendees = Booking.objects.annotate(digits=digits_of("attendee_phone")).filter(HAS_ATTENDEE)
    subjects = [
        Booking.objects.filter(user__in=people.filter(_person(words, "name", "email"))),
        attendees.filter(_person(words, "attendee_name", "attendee_email")),
        Booking.objects.filter(service__in=Service.objects.filter(_all_in(words, ["title"]))),
        Booking.objects.filter(calendar__in=Calendar.objects.filter(_all_in(words, ["name"]))),
    ]
    first, *others = (each.order_by().values("pk") for each in subjects)
    return first.union(*others, all=True)


def _person(words: str, *columns: str) -> Q:
    found = _all_in(words, columns)
    digits = re.sub(r"[^0-9]", "", words)
    if len(digits) >= FEWEST_DIGITS and re.fullmatch(r"[0-9+ ()./-]+", words):
        found |= Q(digits__contains=digits)
    return found


def _all_in(words: str, columns: Iterable[str]) -> Q:
    """Return the condition that each of the words is in one of the columns."""
    found = Q()
    for word in words.split():
        found &= Q(*(_in(word, column) for column in columns), _connector=Q.OR)
    return found


def _in(word: str, column: str) -> Q:
    if len(word) >= FEWEST_LETTERS:
        return Q((f"{column}__icontains", word))
    return Q((f"{column}__istartswith", word)) | Q((f"{column}__icontains", f" {word}"))
