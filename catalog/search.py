"""Finding services by words, at a cost that hardly depends on the words.

What would be expensive is not done:

- Reading the words of many services. The index answers by itself only what combines single words,
  so words between quotes are looked for one by one. Matches are ranked by their titles alone.
- Searching for what everything has. The index cannot skip what lacks a word, so `-word` counts only
  beside a word that is wanted, and stop words find nothing.
- Comparing a misspelt word with all texts. It is looked up in a dictionary of the words that
  services have, where each word is listed under every spelling that lacks one of its letters. Two
  words that are one letter apart (one more, one less, another one, two swapped) share a spelling.
  Where the longest word has none, an index of groups of three letters is asked.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.postgres.search import SearchQuery
from django.db import connections

# Each word is one more list of services that the index has to go through.
MOST_WORDS = 8
# A misspelt or unfinished word stands for this many words, the likeliest ones.
CANDIDATES = 3

# Shorter words are too much alike.
SHORTEST_WORD = 4
# Where a word has no candidates, words that share many of its groups of three letters are. That
# costs 1 to 8 ms in a dictionary of 100,000 words, so it is done for the longest word alone.
LIKELY = f"""
SELECT asked.word, COALESCE(NULLIF(ARRAY(
    SELECT text FROM (
        (
            SELECT text FROM catalog_word WHERE spellings && catalog_spellings(asked.word)
            ORDER BY similarity(text, asked.word) DESC, text LIMIT {CANDIDATES}
        ) UNION (
            SELECT text FROM catalog_word WHERE text >= asked.word AND text < asked.word || %(last)s
            ORDER BY text LIMIT {CANDIDATES}
        )
    ) AS alike
    ORDER BY similarity(text, asked.word) DESC, text LIMIT {CANDIDATES}
), '{{}}'), CASE asked.word WHEN %(longest)s THEN ARRAY(
    SELECT text FROM catalog_word WHERE text %% asked.word
    ORDER BY similarity(text, asked.word) DESC, text LIMIT {CANDIDATES}
) END)
FROM unnest(%(words)s::text[]) AS asked (word)
"""  # noqa: S608 - a number of ours


class Query(SearchQuery):
    """A text-search query in SQL, whose words the planner cannot see.

    If it saw that every service has a word, it would read all services in place of the index, and
    with each of them its words.
    """

    def __init__(self, sql: str, parameters: Iterable[str]) -> None:
        super().__init__("")
        self.sql, self.parameters = sql, tuple(parameters)

    def as_sql(self, compiler: Any, connection: Any, *_: Any, **__: Any) -> Any:
        """Return the query as a subquery, which is planned by itself."""
        return f"(SELECT {self.sql})", [*self.parameters]


@dataclass(frozen=True)
class Words:
    """What is searched for.

    Args:
        wanted: the words that a service must have, each with its alternatives.
        unwanted: the words that it must not have.
        whole: what it may have in place of all wanted words.
    """

    wanted: tuple[tuple[str, ...], ...]
    unwanted: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Words":
        """Return the first words of a text; those behind a minus are unwanted."""
        found = re.findall(r"(?:(?<!\S)(-))?[\"']*([^\W_]+)", text.lower())
        first = dict.fromkeys((word, bool(minus)) for minus, word in found)
        words = [*first][:MOST_WORDS]
        return cls(
            tuple((word,) for word, minus in words if not minus),
            tuple(word for word, minus in words if minus),
        )

    def corrected(self, using: str) -> "Words":
        """Return the words that were probably meant: others of the dictionary, or two as one."""
        asked = [word for (word, *_) in self.wanted if len(word) >= SHORTEST_WORD]
        longest = max(asked, key=len, default="")
        values = {"words": asked, "longest": longest, "last": chr(0x10FFFF)}
        connection: Any = connections[using]
        likely = {word: tuple(found or ()) for word, found in connection.fetch(LIKELY, values)}
        wanted = tuple(likely.get(word) or (word,) for (word, *_) in self.wanted)
        pair = ("".join(word for (word, *_) in self.wanted),) if len(wanted) == 2 else ()
        return Words(wanted, self.unwanted, pair)

    def query(self) -> Query:
        """Return the query that finds the services; without a wanted word it finds none."""
        wanted = " && ".join(f"({_any(words)})" for words in self.wanted) or _any(("",))
        parameters = [word for words in self.wanted for word in words] or [""]
        if self.whole:
            wanted = f"({wanted}) || {_any(self.whole)}"
            parameters += self.whole
        if self.unwanted:
            wanted = (
                "CASE numnode(wanted) WHEN 0 THEN wanted ELSE wanted && !!unwanted END"
                f" FROM (SELECT {wanted} AS wanted, {_any(self.unwanted)} AS unwanted) AS words"
            )
            parameters += self.unwanted
        return Query(wanted, parameters)

    def rank(self) -> Query:
        """Return the query by which titles are ranked: the more of its words, the better."""
        words = [word for words in self.wanted for word in words] + [*self.whole]
        return Query(_any(words or [""]), words or [""])


def _any(words: Iterable[str]) -> str:
    return " || ".join("plainto_tsquery('english', %s)" for _ in words)
