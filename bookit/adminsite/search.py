"""The search of long lists: each table is searched through its own index."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Q, QuerySet

from bookit.database.counts import MAX_COUNTED
from bookit.mailboxes import NOWHERE

# A trigram index finds fewer letters than this only at the beginning of a word.
FEWEST_LETTERS = 3


def found_in(rows: QuerySet[Any], conditions: Sequence[Q]) -> tuple[QuerySet[Any], bool]:
    """Return the rows that meet one of the conditions, each of which can use its own index.

    Returns:
        the rows, and whether at most `MAX_COUNTED` were found.

    A single condition with OR over several tables would read every row. So each condition is first
    searched for by itself. The condition with OR is used only if many rows match: the database then
    fills a page of the list after reading a small part of the rows.
    """
    each = [rows.filter(condition).order_by().values_list("pk") for condition in conditions]
    matches = each[0].union(*each[1:], all=True)
    found = [*matches[: MAX_COUNTED + 1]]
    if len(found) > MAX_COUNTED >= len({*found}):
        # Some rows meet several conditions. A row matches at most once for each condition, so this
        # many matches contain either all rows, or more than `MAX_COUNTED`.
        found = [*matches[: MAX_COUNTED * len(each) + 1]]
    ids = {pk for (pk,) in found}
    if len(ids) <= MAX_COUNTED:
        return rows.filter(pk__in=ids), True
    return rows.filter(Q(*conditions, _connector=Q.OR)), False


def all_in(words: str, columns: Iterable[str]) -> Q:
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
        return contains(column, word)
    return contains(column, word, "istartswith") | contains(column, f" {word}")


def contains(column: str, word: str, lookup: str = "icontains") -> Q:
    """Return the condition that a column contains a word, ignoring case.

    Email addresses of accounts without a mailbox do not count. They are made up from a UUID, in
    which a short name such as Ada often occurs.

    Args:
        lookup: `istartswith` if the column must begin with the word.
    """
    found = Q((f"{column}__{lookup}", word))
    is_address = column.rpartition("__")[2] == "email"
    return found & ~Q((f"{column}__endswith", NOWHERE)) if is_address else found
