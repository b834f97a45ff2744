"""The search for bookings by what people say: names, email addresses and phone numbers."""

import re
from collections.abc import Iterable
from typing import Any

from django.db.models import Q, QuerySet

from accounts.models import FEWEST_DIGITS, User, digits_of
from bookings.models import HAS_ATTENDEE, Booking
from catalog.models import Calendar, Service

# A trigram index finds fewer letters than this only if a word begins with them.
FEWEST_LETTERS = 3
# If at most this many bookings match, a search reads only these bookings. A booking counts twice if
# it matches in two ways, for example by its customer and by its service.
FEW = 3000


def found_by(words: str, *, among: QuerySet[Booking]) -> tuple[QuerySet[Booking], bool]:
    """Return the bookings whose attendee, customer, service or calendar matches all of `words`.

    Case does not matter. Only the digits of a phone number count.

    Returns:
        the bookings, and whether they were found by their ids. Then there are at most `FEW`.

    If few bookings match, a single condition with OR over all tables would read every booking
    before it has filled a page of the list. So each table is first searched alone: users and
    attendees through their indexes; services and calendars, which are few, without one. The
    condition with OR is used only if many bookings match: the database then fills a page after
    reading a small part of the bookings.
    """
    among = among.alias(digits=digits_of("attendee_phone"))
    people = User.objects.alias(digits=digits_of("phone"))
    people = people.filter(person(words, "name", "email"))
    titled = Service.objects.filter(_all_in(words, ["title"]))
    named = Calendar.objects.filter(_all_in(words, ["name"]))
    conditions = [
        Q(user__in=people.values("pk")),
        Q(HAS_ATTENDEE) & person(words, "attendee_name", "attendee_email"),
        Q(service__in=titled.values("pk")),
        Q(calendar__in=named.values("pk")),
    ]
    each = [among.filter(condition).order_by().values_list("pk") for condition in conditions]
    ids = [pk for (pk,) in each[0].union(*each[1:], all=True)[: FEW + 1]]
    if len(ids) <= FEW:
        return among.filter(pk__in=ids), True
    return among.filter(Q(*conditions, _connector=Q.OR)), False


def person(words: str, *columns: str) -> Q:
    """Return the condition that `words` match the name, email address or phone number of a row.

    Args:
        columns: the columns of the name and the email address. The rows must also have `digits`,
            the digits of the phone number.
    """
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


def _in(word: str, column: str) -> Any:
    """Return the condition that a column contains a word.

    A short word is found only at the start of the column and after a space.
    """
    if len(word) >= FEWEST_LETTERS:
        return Q((f"{column}__icontains", word))
    return Q((f"{column}__istartswith", word)) | Q((f"{column}__icontains", f" {word}"))
