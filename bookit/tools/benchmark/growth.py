"""Measures how the cost of a request grows with the database: `manage.py benchmark --growth`.

Several databases, each ten times as large as the one before, are filled first. Then each request is
sent to all of them in turn, so that other work on the machine slows down all of them alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from math import inf, isfinite, log10
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from django.contrib.auth.hashers import make_password

from bookit.api.pagination import MAX_OFFSET
from bookit.runtime import servers
from bookit.runtime.embedded_postgres import running
from bookit.runtime.servers import Server
from bookit.tools.benchmark import fill, load, usage
from bookit.tools.benchmark.cases import Case, Cases
from bookit.tools.benchmark.churn import DAYS, MOST_BLOAT, Bloat, churn
from bookit.tools.benchmark.fill import Size, key, tomorrow
from bookit.tools.benchmark.jobs import Say
from bookit.tools.benchmark.load import NotAnsweredError, raw_request
from bookit.tools.benchmark.measure import PASSWORD, signed_in_cases
from bookit.tools.benchmark.storage import Table, tables

SIZES = [Size(1_000, 100_000), Size(10_000, 1_000_000), Size(100_000, 10_000_000)]
# The size of the database in which a year of bookings is simulated.
CHURN_SIZE = Size(300, 30_000)
# The target: in the largest database, the time and the CPU time of a request are at most this many
# times those in the smallest.
MOST = 1.3

# If no request is answered as expected within a round, the round is repeated once, and then takes
# this number of seconds.
SLOW = 20


@dataclass(frozen=True)
class Cost:
    """What a request costs: its time in milliseconds, and its CPU time in microseconds.

    The CPU time is that of the web workers and PostgreSQL together.
    """

    p50_ms: float
    cpu_us: float


# Stands for the cost of a request that was not answered as expected.
NOT_ANSWERED = Cost(inf, inf)


@dataclass
class Line:
    """A kind of request, and for each database the costs that all rounds have measured."""

    name: str
    title: str
    costs: list[list[Cost]] = field(default_factory=list)
    unexpected: int = 0

    def cost(self, place: int) -> Cost:
        """Return the median cost of the rounds in a database. Place 0 is the smallest database."""
        rounds = self.costs[place]
        return Cost(median(each.p50_ms for each in rounds), median(each.cpu_us for each in rounds))

    def times(self, place: int = -1) -> Cost:
        """Return the cost in a database divided by the cost in the smallest database.

        Place -1 is the largest database.
        """
        first, other = self.cost(0), self.cost(place)
        if NOT_ANSWERED in (first, other):
            return NOT_ANSWERED
        return Cost(other.p50_ms / first.p50_ms, other.cpu_us / first.cpu_us)

    @property
    def is_flat(self) -> bool:
        """Whether the target is reached."""
        return max(self.times().p50_ms, self.times().cpu_us) <= MOST


@dataclass
class Growth:
    """The results: the lines, the tables of the largest database, and the bloat after a year."""

    sizes: Sequence[Size]
    lines: list[Line] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    bloat: list[Bloat] = field(default_factory=list)

    def text(self) -> str:
        """Return the tables in Markdown, for `docs/performance.md`."""
        sizes = [f"{size.bookings:,}" for size in self.sizes]
        heads = [
            *(f"p50 ms, {size}" for size in sizes),
            "times",
            *(f"CPU µs, {size}" for size in sizes),
            "times",
        ]
        rows = [f"| | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
        for line in self.lines:
            costs = [line.cost(place) for place in range(len(self.sizes))]
            times = line.times()
            cells = [
                *(_shown(cost.p50_ms, 1) for cost in costs),
                _shown(times.p50_ms, 1),
                *(_shown(cost.cpu_us, 0) for cost in costs),
                _shown(times.cpu_us, 1),
            ]
            rows.append(f"| {line.title} | {' | '.join(cells)} |")
        flat = sum(line.is_flat for line in self.lines)
        unexpected = sum(line.unexpected for line in self.lines)
        return "\n".join(
            [
                *rows,
                "",
                f"A dash: no request was answered as expected within {SLOW} seconds.",
                f"At most {MOST} times: {flat} of {len(self.lines)} lines.",
                f"Requests without the expected status: {unexpected}",
                "",
                *Table.markdown(self.tables, self.sizes[-1].bookings),
                "",
                *Bloat.markdown(self.bloat),
                f"At most {MOST_BLOAT:.0%} empty: {self._bloat_in_words()}",
            ]
        )

    def _bloat_in_words(self) -> str:
        if not self.bloat:
            return "not measured"
        missed = [each.name for each in self.bloat if each.part > MOST_BLOAT]
        return f"missed by {', '.join(missed)}" if missed else "reached"

    def content(self) -> dict[str, Any]:
        """Return the results for programs."""
        return {
            "sizes": [[size.services, size.bookings] for size in self.sizes],
            "lines": {
                line.title: [
                    [
                        None if cost == NOT_ANSWERED else [cost.p50_ms, cost.cpu_us]
                        for cost in rounds
                    ]
                    for rounds in line.costs
                ]
                for line in self.lines
            },
            "tables": [vars(table) for table in self.tables],
            "bloat": [vars(table) for table in self.bloat],
        }


def _shown(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if isfinite(value) else "-"


def grow(
    growth: Growth,
    *,
    directory: Path,
    seconds: int,
    rounds: int,
    only: Sequence[str],
    say: Say,
    churn_size: Size = CHURN_SIZE,
    days: int = DAYS,
) -> None:
    """Fill a database of each size, measure the requests in all of them, and simulate a year.

    Args:
        growth: gets each result as soon as it is known, so an interrupted run has some results.
        directory: a folder for the databases and temporary files, which are not deleted.
        only: the names of the lines to measure; if empty, all are measured.
        say: a function that is called with lines about the progress.
        churn_size: the size of the database in which days are simulated.
        days: the number of simulated days.

    Raises:
        EmbeddedPostgresError, ServerError, LoadError, UnexpectedResponse: the benchmark cannot
            continue.
    """
    with ExitStack() as stack:
        databases = {}
        for size in growth.sizes:
            say(f"Filling in {size.services:,} services and {size.bookings:,} bookings.")
            url = stack.enter_context(running(directory / f"postgres-{size.bookings}"))
            servers.migrate(url)
            with servers.connected_to(url):
                fill.fill(size, password=make_password(PASSWORD))
            databases[size] = url
        measure(
            growth,
            databases,
            directory=directory,
            seconds=seconds,
            rounds=rounds,
            only=only,
            say=say,
        )
    growth.bloat = churn(churn_size, days=days, directory=directory, say=say)


def measure(
    growth: Growth,
    databases: Mapping[Size, str],
    *,
    directory: Path,
    seconds: int,
    rounds: int,
    only: Sequence[str],
    say: Say,
) -> None:
    """Measure the requests in filled databases, which are given from the smallest to the largest.

    Raises:
        ServerError, LoadError, UnexpectedResponse: the benchmark cannot continue.
    """
    with ExitStack() as stack:
        places = []
        for size, url in databases.items():
            server = stack.enter_context(
                servers.serving(servers.BOOKIT, servers.production(url, workers=1))
            )
            server.wait("/health")
            with servers.connected_to(url):
                places.append(Place(server, usage.postmaster(), _known(size, server)))
                last = tables()
        growth.tables = last
        for number, case in enumerate(places[0].cases):
            if only and case.name not in only:
                continue
            line = Line(case.name, case.title, [[] for _ in places])
            say(f"Measuring {line.title}.")
            for place, costs in zip(places, line.costs, strict=True):
                # The first requests, which open connections and warm up code, are not counted.
                warm_up, _ = place.run(place.cases[number], seconds=seconds, directory=directory)
                if warm_up is NOT_ANSWERED:
                    costs.append(warm_up)
            for _round in range(rounds):
                for place, costs in zip(places, line.costs, strict=True):
                    # A request that takes longer than a round is measured only once, or not at all.
                    if any(each.p50_ms > seconds * 1000 for each in costs):
                        continue
                    cost, unexpected = place.run(
                        place.cases[number], seconds=seconds, directory=directory
                    )
                    line.unexpected += unexpected
                    costs.append(cost)
            growth.lines.append(line)


@dataclass
class Place:
    """A filled database, its web server, and the cases for it."""

    server: Server
    postmaster: psutil.Process
    cases: list[Case]

    def run(self, case: Case, *, seconds: int, directory: Path) -> tuple[Cost, int]:
        """Send the requests of a case.

        Return the cost of one request, and the number of requests without the expected status. If
        no request gets the expected status, return `NOT_ANSWERED` and 0.
        """
        send = partial(load.send, port=self.server.port, connections=1, directory=directory)
        for length in (seconds, SLOW):
            before = self._cpu_seconds()
            with suppress(NotAnsweredError):
                measured = send(case.requests(length), seconds=length)
                if measured.statuses.get(case.expected):
                    spent = self._cpu_seconds() - before
                    cost = Cost(measured.p50_ms, spent * 1e6 / sum(measured.statuses.values()))
                    return cost, measured.unexpected(case.expected)
        return NOT_ANSWERED, 0

    def _cpu_seconds(self) -> float:
        return sum(usage.cpu_seconds(self.server)) + usage.database_cpu_seconds(self.postmaster)


def _known(size: Size, server: Server) -> list[Case]:
    """Return the cases of the benchmark except `UNMEASURED`, and a case for each of `_lists`."""
    known = signed_in_cases(size, server)
    measured = [case for case in known.all() if case.name not in UNMEASURED]
    return [replace(case, title=_title(case, size)) for case in measured] + _long_lists(known)


# The cases that are left out. In a database that was measured before, new series of slots would
# overlap the earlier series. Most of a login is the password's hash, which costs the same in any
# database. `create-silent` exists only to be compared with `create`.
UNMEASURED = {"create-silent", "publish", "login"}


def _title(case: Case, size: Size) -> str:
    # A line has one title for all databases, so the title must not contain the size of one. All
    # lines are measured with one client, so no title has to say so.
    return case.title.replace(f" of {size.services:,}", "").replace(", one client", "").strip()


def _lists(size: Size) -> dict[str, str]:
    """Return the paths of long lists and of searches in large tables, by their names."""
    day = tomorrow()
    # The provider of calendar 7, as in `Town.calendars`.
    provider = key("user", size.customers + 1 + 7 % size.providers)
    deepest = min(size.services * 9 // 10, MAX_OFFSET)
    return {
        "services-last": f"/services?limit=20&offset={deepest}",
        "services-rating": "/services?ordering=-rating",
        "services-q-order": "/services?q=yoga&ordering=price",
        "services-q-typo": "/services?q=yogga",
        "services-q-rare": "/services?q=zither",
        "services-slots": "/services?mode=slots",
        "services-inactive": "/services?active=false",
        "providers": "/providers",
        "providers-q": "/providers?q=customer",
        "calendars": f"/calendars?provider_id={provider}",
        "everybody": "/bookings",
        "everybody-deep": f"/bookings?limit=20&offset={MAX_OFFSET}",
        "everybody-cursor": "/bookings?cursor=",
        "everybody-age": "/bookings?ordering=-created_at",
        "everybody-pending": "/bookings?status=pending",
        "everybody-held": "/bookings?status=held",
        "everybody-from": f"/bookings?from={day}",
        "everybody-service": f"/bookings?service_id={key('service', 7)}&ordering=created_at",
        "users": "/users",
        "users-q": "/users?q=customer+77",
        "events": "/events",
        "events-rare": "/events?type=review.created",
    } | {f"admin-{name}": f"/admin/{path}" for name, path in _pages().items()}


def _pages() -> dict[str, str]:
    return {
        "bookings-deep": "bookings/booking/?p=199",
        "bookings-pending": "bookings/booking/?status__exact=pending",
        "bookings-held": "bookings/booking/?status__exact=held",
        "bookings-q": "bookings/booking/?q=customer+77",
        "bookings-year": f"bookings/booking/?start_time__year={tomorrow().year}",
        "history": "bookings/bookingevent/",
        "history-type": "bookings/bookingevent/?type__exact=booking.no_show",
        "users": "accounts/user/",
        "users-q": "accounts/user/?q=zzqq",
        "services": "catalog/service/",
        "services-q": "catalog/service/?q=zither",
        "services-mode": "catalog/service/?mode__exact=slots",
        "calendars-q": "catalog/calendar/?q=zzqq",
    }


LONG_LISTS = [*_lists(SIZES[0])]


def _long_lists(known: Cases) -> list[Case]:
    return [
        Case(
            name,
            _title_of_list(name, path),
            200,
            partial(known.open_admin_page, path)
            if path.startswith("/admin/")
            else partial(_listed, path, known.admin),
            connections=1,
        )
        for name, path in _lists(known.size).items()
    ]


def _title_of_list(name: str, path: str) -> str:
    if name == "services-last":
        return "/services, the deepest page"  # The offset depends on the size.
    return f"everybody's {path}" if name.startswith("everybody") else path


def _listed(path: str, token: str, seconds: float) -> Iterator[bytes]:
    yield raw_request("GET", path, token=token)


# --- the picture ------------------------------------------------------------------------------

# The size of the picture and its parts, in pixels.
LEFT, RIGHT, ROW, TOP, BOTTOM = 330, 60, 19, 62, 28
WIDTH = 820

STYLE = """
    .ink { fill: #1f2328; }
    .soft { fill: #59636e; }
    .line { stroke: #d1d9e0; stroke-width: 1; }
    .limit { stroke: #9a6700; stroke-width: 1.5; stroke-dasharray: 4 3; }
    .flat { fill: #1a7f37; }
    .grown { fill: #cf222e; }
    .flat-bar { stroke: #1a7f37; stroke-width: 2; }
    .grown-bar { stroke: #cf222e; stroke-width: 2; }
    @media (prefers-color-scheme: dark) {
      .ink { fill: #f0f6fc; }
      .soft { fill: #9198a1; }
      .line { stroke: #3d444d; }
      .limit { stroke: #d29922; }
      .flat { fill: #3fb950; }
      .grown { fill: #f85149; }
      .flat-bar { stroke: #3fb950; }
      .grown-bar { stroke: #f85149; }
    }
  """


def picture(sizes: Sequence[Size], lines: Sequence[Line]) -> str:
    """Return an SVG picture. Each row shows the factor by which the CPU time of one line grows.

    The small dot stands for the second database, and the large dot for the largest.
    """
    growths = [line.times(place).cpu_us for line in lines for place in (1, -1)]
    most = max(filter(isfinite, growths), default=1)
    # The factors at the two ends of the axis, which is logarithmic.
    right = max(2.0, 10 ** (log10(most) + 0.05))
    left = 0.5

    def x(times: float) -> float:
        share = log10(min(max(times, left), right) / left) / log10(right / left)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    bottom = TOP + ROW * len(lines)
    ends = f"{sizes[0].bookings:,} bookings to {sizes[-1].bookings:,}"
    shown = [
        (
            '  <text class="ink" x="10" y="22" font-weight="600">'
            f"CPU time of a request, from {ends}</text>"
        ),
        (
            f'  <text class="soft" x="10" y="42">{sizes[1].bookings:,}: small dot. '
            f"{sizes[-1].bookings:,}: large dot. Dashed: {MOST} times.</text>"
        ),
    ]
    for times in (0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        if times <= right:
            shown += [
                f'  <path class="line" d="M{x(times)} {TOP} V{bottom}"/>',
                (
                    f'  <text class="soft" x="{x(times)}" y="{bottom + 18}" text-anchor="middle">'
                    f"{times:g}</text>"
                ),
            ]
    shown.append(f'  <path class="limit" d="M{x(MOST)} {TOP} V{bottom}"/>')
    for row, line in enumerate(lines):
        middle = TOP + ROW * row + ROW / 2
        then, last = line.times(1).cpu_us, line.times().cpu_us
        kind = "flat" if last <= MOST else "grown"
        shown.append(
            f'  <text class="ink" x="{LEFT - 12}" y="{middle + 4}" text-anchor="end">'
            f"{escape(_short(line.title))}</text>"
        )
        if not isfinite(max(then, last)):
            shown.append(
                f'  <text class="grown" x="{x(MOST) + 9}" y="{middle + 4}">not answered</text>'
            )
            continue
        shown += [
            f'  <path class="{kind}-bar" d="M{x(1)} {middle} H{x(last)}"/>',
            f'  <circle class="{kind}" cx="{x(then)}" cy="{middle}" r="2.5"/>',
            f'  <circle class="{kind}" cx="{x(last)}" cy="{middle}" r="4.5"/>',
            (
                f'  <text class="{kind}" x="{x(max(then, last, MOST)) + 9}" y="{middle + 4}">'
                f"{last:.1f}</text>"
            ),
        ]
    grown = sum(line.times().cpu_us > MOST for line in lines)
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}"'
                ' role="img" aria-labelledby="title description" font-family="system-ui,'
                ' -apple-system, \'Segoe UI\', Helvetica, Arial, sans-serif" font-size="12">'
            ),
            '  <title id="title">How the cost of a request grows with the database</title>',
            (
                f'  <desc id="description">From {ends}, the CPU time of {len(lines) - grown} of'
                f" {len(lines)} kinds of requests grows at most {MOST} times.</desc>"
            ),
            f"  <style>{STYLE}</style>",
            *shown,
            "</svg>",
            "",
        ]
    )


def _short(title: str) -> str:
    return title if len(title) <= 44 else f"{title[:43]}\N{HORIZONTAL ELLIPSIS}"
