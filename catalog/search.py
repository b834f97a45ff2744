"""Finding services by words, at a cost that hardly depends on the words.

A search avoids three things that would be expensive:

- Reading the words of many services. The index can answer a query by itself only if the query
  combines single words, so the words of a quoted phrase are searched for one by one. Matches are
  ranked by their titles alone.
- Searching for what every service has. The index cannot search by the absence of a word, so `-word`
  counts only beside a wanted word. Stop words find nothing.
- Comparing a misspelt word with all texts. Instead, it is looked up in a dictionary of the words
  that services have. The dictionary lists each word as it is and without each one of its letters.
  Two words that are one edit apart (a letter added, removed or replaced, or two neighbours swapped)
  have such a spelling in common. If nothing is found for the longest word, it is looked up in an
  index of groups of three letters.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.postgres.search import SearchQuery

from bookit.database.rows import fetch

# For each word, the index has to go through one more list of services.
MOST_WORDS = 6
# A misspelt or unfinished word is replaced by up to this many words, the most similar ones.
CANDIDATES = 3

# Shorter words are not corrected: too many of them are alike.
SHORTEST_WORD = 4
# If a word has no candidates, the words that share many of its groups of three letters are used.
# Finding them takes 1 to 8 ms in a dictionary of 100,000 words, so only the longest word gets this.
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
    """A text-search query in SQL whose words are hidden from the planner.

    If the planner saw that every service has a word, it would read all services and their words
    instead of the index.
    """

    def __init__(self, sql: str, parameters: Iterable[str]) -> None:
        super().__init__("")
        self.sql, self.parameters = sql, tuple(parameters)

    def as_sql(self, compiler: Any, connection: Any, *_: Any, **__: Any) -> Any:
        """Return the query as a subquery, which PostgreSQL plans separately."""
        return f"(SELECT {self.sql})", [*self.parameters]


@dataclass(frozen=True)
class Words:
    """The words of a search.

    Args:
        wanted: the words that a service must have, each with its alternatives.
        unwanted: the words that a service must not have.
        whole: words that a service may have instead of all wanted words.
    """

    wanted: tuple[tuple[str, ...], ...]
    unwanted: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Words":
        """Return the first words of a text; words that follow a minus are unwanted."""
        found = re.findall(r"(?:(?<!\S)(-))?[\"']*([^\W_]+)", text.lower())
        first = dict.fromkeys((word, bool(minus)) for minus, word in found)
        words = [*first][:MOST_WORDS]
        return cls(
            tuple((word,) for word, minus in words if not minus),
            tuple(word for word, minus in words if minus),
        )

    def corrected(self, using: str) -> "Words":
        """Return the words that were probably meant.

        Words are replaced by similar ones of the dictionary. Two words may also be meant as one.
        """
        asked = [word for (word, *_) in self.wanted if len(word) >= SHORTEST_WORD]
        longest = max(asked, key=len, default="")
        values = {"words": asked, "longest": longest, "last": chr(0x10FFFF)}
        found = fetch(LIKELY, values, using=using)
        likely = {word: tuple(meant or ()) for word, meant in found}
        wanted = tuple(likely.get(word) or (word,) for (word, *_) in self.wanted)
        pair = ("".join(word for (word, *_) in self.wanted),) if len(wanted) == 2 else ()
        return Words(wanted, self.unwanted, pair)

    def query(self) -> Query:
        """Return the query that finds the services; without a wanted word, it finds none."""
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
        """Return the query that ranks titles: the more of its words a title has, the better."""
        words = [word for words in self.wanted for word in words] + [*self.whole]
        return Query(_any(words or [""]), words or [""])


def _any(words: Iterable[str]) -> str:
    return " || ".join("plainto_tsquery('english', %s)" for _ in words)
