"""Reads the catalog from replicas of PostgreSQL, if DATABASE_REPLICA_URL names any.

A view with `reads_replicas` passes its GET handlers to `read`, which chooses the database:

- A reader without a token gets a replica that is in use, that is, a replica that is up and lags by
  at most DATABASE_REPLICA_MAX_LAG_MS.
- A reader with a token gets such a replica only if it has everything that was committed when the
  request was authenticated. The query that reads the user, which runs on the primary anyway,
  also returns the position of the primary's log (`with_position`). So readers never miss their own
  writes, whichever host made them and however far the replica lags. Writes do no extra work.
- If the replica fails, the primary answers the same request, unless a slow read on the replica has
  used up the time of the request.

Views without `reads_replicas` use only the primary.

In each web process, a thread per replica compares the position of the replica with that of the
primary a few times a second, and decides whether the replica is in use.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from itertools import count
from math import inf, isfinite
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.models import BigIntegerField, Func, QuerySet
from psycopg.rows import class_row, scalar_row

from bookit import deadlines
from bookit.database.postgresql.connections import Connection
from bookit.database.reading import reading_from
from bookit.database.rows import fetch
from bookit.database.usage import usage
from bookit.errors import database_error_facts, is_database_unavailable

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: The aliases of the replicas in Django's DATABASES.
ALIASES: tuple[str, ...] = tuple(alias for alias in settings.DATABASES if alias != DEFAULT_DB_ALIAS)

# Seconds between two comparisons of a replica with the primary.
INTERVAL = 0.2
# Seconds that the primary or a replica has to report its position, once it is connected.
PATIENCE = 0.5
# Seconds that a replica has to answer a request. After that, the primary answers the request, if
# the request has any time left.
LIMIT = 2.0
# At most this many positions of the primary are remembered until the replica has reached them.
MAX_AHEAD = 1000

# SQLSTATEs of a replica that works, but had to cancel a statement: a conflict with the log that it
# replays, a time limit, or a write.
CANCELLED = frozenset({"40001", "40P01", "57014", "25006"})

# The position of the primary's log that includes every commit that a client has been told about.
# If `synchronous_commit` is off, PostgreSQL reports a commit before it flushes the log.
POSITION = """
CASE current_setting('synchronous_commit')
WHEN 'off' THEN pg_current_wal_insert_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'
"""

# Reads the position of the primary.
#
# Parameters: none.
# Columns: position bigint (in bytes), cluster bigint (the same on all replicas).
PRIMARY = f"""
SELECT ({POSITION})::bigint AS position, system_identifier AS cluster FROM pg_control_system()
"""  # noqa: S608 - only our own SQL expression is interpolated, no values

# Reads the position up to which a replica has replayed the primary's log.
#
# Parameters: none.
# Columns: those of PRIMARY; no row if the server is not a replica.
REPLICA = """
SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint AS position, system_identifier AS cluster
FROM pg_control_system() WHERE pg_is_in_recovery()
"""

# Reads only the position of a replica.
#
# Parameters: none.
# Columns: position bigint (in bytes).
REPLAYED = "SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint AS position"


class _Position(Func):
    """The position of the primary's log."""

    template = f"({POSITION})::bigint"
    output_field = BigIntegerField()


def with_position(users: QuerySet[Any]) -> QuerySet[Any]:
    """Let a query on the primary also return `log_position`, if there are replicas.

    This costs no round trip, and nothing at all without replicas.
    """
    return users.annotate(log_position=_Position()) if ALIASES else users


class _State(NamedTuple):
    """The state that a server reports."""

    position: int
    cluster: int


class _Probe(Connection):
    """A connection that waits only `PATIENCE` seconds."""

    patience = PATIENCE


class _Server:
    """A server that is asked about its position again and again."""

    def __init__(self, alias: str, query: str) -> None:
        self.alias = alias
        self._query = query
        self._connection: _Probe | None = None

    def state(self) -> _State | None:
        """Return the server's state, or None if `query` returns no row; see `REPLICA`.

        Raises:
            psycopg.Error: the server does not answer.
        """
        try:
            if self._connection is None:
                place: Any = connections[self.alias].get_connection_params()
                self._connection = _Probe.connect(**place, autocommit=True)
            with self._connection.cursor(row_factory=class_row(_State)) as cursor:
                return cursor.execute(self._query).fetchone()
        except psycopg.Error:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            raise


class Replica(threading.Thread):
    """A replica, and the thread that watches it."""

    def __init__(self, alias: str) -> None:
        super().__init__(name=alias, daemon=True)
        self.alias = alias
        place = settings.DATABASES[alias]
        self.place = f"{place['HOST']}:{place['PORT'] or 5432}"
        self.is_in_use = False
        # The position up to which the replica is known to have replayed the log.
        self.replayed = 0
        # Seconds by which the replica lags, measured to within INTERVAL.
        self.lag = inf
        #: Set as soon as the thread has looked at the replica for the first time.
        self.was_seen = threading.Event()
        self._primary = _Server(DEFAULT_DB_ALIAS, PRIMARY)
        self._replica = _Server(alias, REPLICA)
        self._cluster: int | None = None
        # Positions of the primary that the replica has not reached yet, with their times.
        self._ahead: deque[tuple[float, int]] = deque()
        self._sampled_at = 0.0
        self._level_at = -inf
        # Why `_judge` left the replica out; None if it did not, and "" until the first judgement.
        self._reason: str | None = ""

    def run(self) -> None:
        """Decide again and again whether the replica is in use."""
        while True:
            self.look()
            self.was_seen.set()
            sleep(INTERVAL)

    def look(self) -> None:
        """Compare the replica with the primary, and decide whether the replica is in use."""
        self._sample()
        try:
            state = self._replica.state()
        except psycopg.Error as error:
            self._judge(str(error).partition("\n")[0])
            return
        if state is None:
            self._judge("it is not a replica")
        elif self._cluster not in (None, state.cluster):
            self._judge("it is a replica of another server than DATABASE_URL")
        else:
            self._measure(state.position)
            is_late = self.lag * 1000 > settings.DATABASE_REPLICA_MAX_LAG_MS
            if isfinite(self.lag):
                self._judge(f"it lags by {self.lag:.1f} s" if is_late else None)
            else:
                self.is_in_use = False  # It has not reached any known position of the primary yet.

    def _sample(self) -> None:
        """Remember the position of the primary.

        While the primary does not answer, the replica is compared with the primary's last known
        position. The catalog can be read during that time.
        """
        now = monotonic()
        try:
            state = self._primary.state()
        except psycopg.Error:
            return
        if state is not None:
            self._sampled_at, self._cluster = now, state.cluster
            if len(self._ahead) < MAX_AHEAD:
                self._ahead.append((now, state.position))

    def _measure(self, replayed: int) -> None:
        """Compute the lag from the last time at which the primary was not ahead of the replica."""
        while self._ahead and self._ahead[0][1] <= replayed:
            self._level_at, _position = self._ahead.popleft()
        self.replayed, self.lag = replayed, self._sampled_at - self._level_at

    def _judge(self, reason: str | None) -> None:
        """Leave the replica out for a reason, or use it if there is none. Log a change."""
        self.is_in_use = reason is None
        if self._reason == "" or (reason is None) != (self._reason is None):
            if reason is None:
                logger.info("%s (%s) answers catalog reads.", self.alias, self.place)
            else:
                logger.warning(
                    "%s (%s) is left out, and the primary answers: %s.",
                    self.alias,
                    self.place,
                    reason.rstrip("."),
                )
        self._reason = reason

    def has(self, position: int) -> bool:
        """Return whether the replica has replayed the log up to `position`."""
        if self.replayed < position:
            [self.replayed] = fetch(REPLAYED, {}, scalar_row, using=self.alias)
        return self.replayed >= position

    def note(self, error: Error) -> None:
        """Log an error. If the replica does not answer, leave it out until `look` reaches it."""
        state, _constraint = database_error_facts(error)
        logger.warning(
            "%s failed to answer a request: %s %s",
            self.alias,
            type(error.__cause__ or error).__name__,
            state or "",
        )
        if is_database_unavailable(error) and state not in CANCELLED:
            self.is_in_use = False


_starting = threading.Lock()


def replicas() -> tuple[Replica, ...]:
    """Return the replicas of this process. The first call starts the threads that watch them."""
    with _starting:  # `cache` alone would let two threads make the first call.
        return _start()


@cache
def _start() -> tuple[Replica, ...]:
    found = tuple(Replica(alias) for alias in ALIASES)
    for each in found:
        each.start()
    return found


_turns = count()


def read(handle: Callable[..., Result], user: Any, *arguments: Any, **options: Any) -> Result:
    """Call `handle`, which reads from a replica or from the primary, and return its result.

    The replicas in use take turns. If the next replica is not recent enough for the user, `handle`
    reads from the primary.

    Args:
        handle: a function that only reads. It is called again if the replica fails.
        user: the user of the request, read with `with_position`, or an anonymous user.
    """
    position = getattr(user, "log_position", None) if user.is_authenticated else 0
    usable = [each for each in replicas() if each.is_in_use]
    if position is not None and usable:
        replica = usable[next(_turns) % len(usable)]
        began = monotonic()
        try:
            with deadlines.within(LIMIT):
                if replica.has(position):
                    with reading_from(replica.alias):
                        result = handle(*arguments, **options)
                    usage.source = "replica"
                    return result
        except Error as error:
            replica.note(error)
            if not replica.is_in_use:
                # The replica did not answer. This wait does not count as time of the request.
                deadlines.extend(monotonic() - began)
            elif deadlines.remaining(LIMIT) == 0:
                # The read used up the time of the request. It would be as slow on the primary.
                raise
    usage.source = "primary"
    return handle(*arguments, **options)
