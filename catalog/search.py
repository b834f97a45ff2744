"""Finding services by words, at a cost that hardly depends on the words.

A search avoids three things that would be expensive:

- Reading the words of many services. The index can answer a query by itself only if the query
  combines single words, so the words of a quoted phrase are searched for one by one. Matches are
  ranked by their titles alone.
- Reading all services. The index cannot search by the absence of a word, so `-word` only narrows
  a search for other words. A search for stop words alone finds nothing.
- Comparing a misspelt word with all texts. Instead, if a search finds nothing, its words are looked
  up in a dictionary of the words of services. The dictionary stores the spellings of each word: the
  word itself, and the word with any one of its letters left out. Two words that are one edit apart
  (a letter added, removed or replaced, or two neighbours swapped) share a spelling. If no similar
  word is found for the longest word, it is looked up in an index of groups of three letters. The
  last word may be unfinished, so services with any word that begins with it are found, too.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from psycopg.rows import namedtuple_row

from bookit.database.rows import fetch
from catalog.triggers import DIVIDERS

# A search uses up to this many wanted words, and as many unwanted ones. For each word, PostgreSQL
# reads another list of services in the index.
MAX_WORDS = 4
# A misspelt or unfinished word is replaced by up to this many words of the dictionary, the most
# similar ones.
CANDIDATES = 3
# Shorter words are not corrected: too many of them are alike.
SHORTEST_WORD = 4
# A word, with the minus before it if there is one.
WORD = re.compile(rf"(?:(?<!\S)(-))?[\"']*([^{DIVIDERS}]+)")
# What separates two words of a service.
DIVIDER = re.compile(rf"[{DIVIDERS}]+")
# The end of a text search query for all words that begin with a word.
ANY_END = ":*"
# The end of the name of a parameter that contains such a query.
BEGINS = "_begins"
# The SQL of a text search query that finds nothing.
NOTHING = "''::tsquery"

# Finds words of the dictionary that are similar to the words of a search that found nothing.
#
# Candidates share a spelling with a word, or begin with it (only the first by alphabet). If the
# longest word has no candidates, words that share many of its groups of three letters are used
# instead. Finding these takes 1 to 8 ms in a dictionary of 100,000 words, so it is done only for
# the longest word.
#
# Stop words are left out: no service needs to have them, so it need not have similar words either.
#
# Parameters: words text[], last text (the character that sorts last).
# Columns: word text, similar text[] (null or empty if there are none); one row for each of `words`,
#     except stop words.
# Invariant: the trigger `service_words_are_known` keeps the dictionary complete.
SIMILAR = f"""
SELECT asked.word, COALESCE(NULLIF(ARRAY(
    SELECT text FROM (
        (
            SELECT text FROM catalog_word WHERE spellings && catalog_spellings(asked.word)
            ORDER BY similarity(text, asked.word) DESC, text LIMIT {CANDIDATES}
        ) UNION (
            SELECT text FROM catalog_word
            WHERE text >= asked.word AND text < asked.word || %(last)s::text
            ORDER BY text LIMIT {CANDIDATES}
        )
    ) AS candidate
    ORDER BY similarity(text, asked.word) DESC, text LIMIT {CANDIDATES}
), '{{}}'), CASE asked.word WHEN asked.longest THEN ARRAY(
    SELECT text FROM catalog_word WHERE text %% asked.word
    ORDER BY similarity(text, asked.word) DESC, text LIMIT {CANDIDATES}
) END) AS similar
FROM (
    SELECT word, first_value(word) OVER (ORDER BY length(word) DESC, word) AS longest
    FROM unnest(%(words)s::text[]) AS words (word)
    WHERE numnode(plainto_tsquery('english', word)) > 0
) AS asked
"""  # noqa: S608 - a number of ours


@dataclass(frozen=True)
class Words:
    """The words of a search.

    Args:
        wanted: the words that a service must have, each with its alternatives. An alternative with
            `ANY_END` is a text search query.
        unwanted: the words that a service must not have.
        joined: the two wanted words written as one, which a service may have instead of both.
    """

    wanted: tuple[tuple[str, ...], ...]
    unwanted: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Words":
        """Return the longest words of a text; words that follow a minus are unwanted.

        Long words say more than short ones, many of which are stop words.
        """
        found = WORD.findall(text.lower())
        wanted = _longest(word for minus, word in found if not minus)
        return cls(
            wanted=tuple((word,) for word in wanted),
            unwanted=_longest(word for minus, word in found if minus),
        )

    def corrected(self) -> "Words":
        """Return the words that were probably meant.

        Words are replaced by similar ones from the dictionary. Two words may also be joined.
        """
        asked = [word for (word, *_) in self.wanted if len(word) >= SHORTEST_WORD]
        values = {"words": asked, "last": chr(0x10FFFF)}
        rows: list[Any] = fetch(SIMILAR, values, namedtuple_row)
        similar = {row.word: tuple(row.similar or ()) for row in rows}
        wanted = [similar.get(word) or (word,) for (word, *_) in self.wanted]
        # The dictionary is not enough for an unfinished word: more than `CANDIDATES` words can
        # begin with it, and the dictionary keeps the words of former services. Only the last word
        # is searched for by its beginning, because PostgreSQL reads a list of services for each
        # word that begins with it.
        if self.wanted and (last := self.wanted[-1][0]) in similar:
            wanted[-1] = (*wanted[-1], f"'{last}'{ANY_END}")
        pair = ("".join(word for (word, *_) in self.wanted),) if len(wanted) == 2 else ()
        return Words(tuple(wanted), self.unwanted, pair)

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The words that `query` and `any_wanted` take as parameters, by the parameters' names."""
        return {name: word for word, name in self._names.items()}

    @cached_property
    def shape(self) -> "Words":
        """A copy that contains the names of parameters in place of the words.

        Searches with words of equal shapes have the same SQL.
        """
        names = self._names
        return Words(
            wanted=tuple(tuple(names[word] for word in words) for words in self.wanted),
            unwanted=tuple(names[word] for word in self.unwanted),
            joined=tuple(names[word] for word in self.joined),
        )

    # Read the next two properties only from a `shape`: they put its words, the names of parameters,
    # into SQL.

    @property
    def query(self) -> str:
        """The SQL of the query that finds the services. Without a wanted word, it finds none."""
        query = " && ".join(f"({self._any(words)})" for words in self.wanted) or NOTHING
        if self.joined:
            query = f"({query}) || {self._any(self.joined)}"
        if self.unwanted:
            query = (
                "CASE numnode(wanted) WHEN 0 THEN wanted ELSE wanted && !!unwanted END"
                f" FROM (SELECT {query} AS wanted, {self._any(self.unwanted)} AS unwanted) AS words"
            )
        return f"(SELECT {query})"

    @property
    def any_wanted(self) -> str:
        """The SQL of the query that ranks titles: the more of its words a title has, the better."""
        words = [*(word for words in self.wanted for word in words), *self.joined]
        return f"(SELECT {self._any(words) or NOTHING})"

    @property
    def is_single(self) -> bool:
        """Whether one word is wanted and none unwanted. A title with it is then enough."""
        return len(self.wanted) == 1 and not self.unwanted

    @cached_property
    def _names(self) -> dict[str, str]:
        words = [word for words in self.wanted for word in words]
        distinct = dict.fromkeys([*words, *self.joined, *self.unwanted])
        return {
            word: f"word_{number}{BEGINS if word.endswith(ANY_END) else ''}"
            for number, word in enumerate(distinct, start=1)
        }

    def _any(self, names: Iterable[str]) -> str:
        return " || ".join(
            f"%({name})s::tsquery"
            if name.endswith(BEGINS)
            else f"plainto_tsquery('english', %({name})s)"
            for name in names
        )


def divided(text: str) -> str:
    """Return a text with spaces between its words, as the words of services are stored."""
    return DIVIDER.sub(" ", text)


def _longest(words: Iterable[str]) -> tuple[str, ...]:
    """Return the `MAX_WORDS` longest words, without repetitions and in their original order."""
    distinct = dict.fromkeys(words)
    longest = sorted(distinct, key=len, reverse=True)[:MAX_WORDS]
    return tuple(word for word in distinct if word in longest)
