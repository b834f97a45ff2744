"""The results of the benchmark: a table for people, JSON for programs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import mean, median
from typing import Any

from bookit.tools.benchmark.cases import Case
from bookit.tools.benchmark.jobs import JobsDone
from bookit.tools.benchmark.load import Measurement
from bookit.tools.benchmark.usage import Memory

# The target: in every run with several connections, the least used of BookIt's workers uses at
# least this part of the mean CPU time of these workers.
LEAST_EVENNESS = 0.5
# The target: after all rounds of all cases, a web worker has at most this resident memory, in MiB.
MAX_MEMORY = 90


@dataclass(frozen=True)
class Run:
    """One measurement, and the CPU time that each web worker and PostgreSQL used during it.

    Args:
        unexpected: the number of requests without a response of the expected status.
    """

    measurement: Measurement
    web_seconds: list[float]
    database_seconds: float
    unexpected: int

    @property
    def cpu_us(self) -> float:
        """The CPU time of a request in the web workers and PostgreSQL, in microseconds."""
        return self._per_request(sum(self.web_seconds) + self.database_seconds)

    @property
    def web_us(self) -> float:
        """The CPU time of a request in the web workers, in microseconds."""
        return self._per_request(sum(self.web_seconds))

    @property
    def database_us(self) -> float:
        """The CPU time of a request in PostgreSQL, in microseconds."""
        return self._per_request(self.database_seconds)

    def _per_request(self, seconds: float) -> float:
        return seconds * 1e6 / sum(self.measurement.statuses.values())

    @property
    def evenness(self) -> float:
        """The CPU time of the least used worker, divided by the mean of all workers."""
        return min(self.web_seconds) / mean(self.web_seconds)


def _rate(run: Run) -> float:
    return run.measurement.rate


def _by_round(value: Callable[[Run], float], ones: list[Run], others: list[Run]) -> float:
    """Return the median, over the rounds, of `value` in `ones` divided by `value` in `others`."""
    return median(value(one) / value(other) for one, other in zip(ones, others, strict=True))


@dataclass
class Result:
    """All rounds of a case. Rates, times and ratios, except `pgbench`, are medians of the rounds.

    Args:
        expected: the expected status of the responses.
        least_ratio, most_spread, most_ms: the targets; see `Case`.
        pgbench: how many times per second PostgreSQL alone ran the statements of a request. It is
            measured once.
    """

    name: str
    title: str
    expected: int
    connections: int
    least_ratio: float | None = None
    most_spread: float | None = None
    most_ms: float | None = None
    bookit: list[Run] = field(default_factory=list)
    reference: list[Run] = field(default_factory=list)
    pgbench: float | None = None

    @classmethod
    def of(cls, case: Case) -> "Result":
        """Return a result for a case, still without rounds."""
        return cls(
            case.name,
            case.title,
            case.expected,
            case.connections,
            least_ratio=case.least_ratio,
            most_spread=case.most_spread,
            most_ms=case.most_ms,
        )

    @property
    def rate(self) -> float:
        """Requests per second."""
        return median(run.measurement.rate for run in self.bookit)

    @property
    def reference_rate(self) -> float | None:
        """Requests per second of the reference."""
        return median(run.measurement.rate for run in self.reference) if self.reference else None

    @property
    def ratio(self) -> float | None:
        """BookIt's rate divided by the reference's rate in the same round."""
        return _by_round(_rate, self.bookit, self.reference) if self.reference else None

    @property
    def cpu_ratio(self) -> float | None:
        """BookIt's CPU time per request divided by the reference's in the same round."""
        if not self.reference:
            return None
        return _by_round(lambda run: run.cpu_us, self.bookit, self.reference)

    @property
    def p50_ms(self) -> float:
        """The time in which half of the requests were answered."""
        return median(run.measurement.p50_ms for run in self.bookit)

    @property
    def p99_ms(self) -> float:
        """The time in which 99 of 100 requests were answered."""
        return median(run.measurement.p99_ms for run in self.bookit)

    @property
    def evenness(self) -> list[float]:
        """The evenness of each run. Empty with one connection, which can use only one worker."""
        return [run.evenness for run in self.bookit] if self.connections > 1 else []

    @property
    def unexpected(self) -> int:
        """The sum of `unexpected` over all runs of BookIt and of the reference."""
        return sum(run.unexpected for run in [*self.bookit, *self.reference])

    def missed(self) -> list[str]:
        """Return the targets that were missed."""
        missed = []
        ratio = self.ratio
        if self.least_ratio is not None and ratio is not None and ratio < self.least_ratio:
            missed.append(
                _line(f"{self.title}: {ratio:.3f} of the reference", least=self.least_ratio)
            )
        if self.most_spread is not None and self.p99_ms > self.most_spread * self.p50_ms:
            spread = self.p99_ms / self.p50_ms
            missed.append(
                _line(f"{self.title}: p99 is {spread:.2f} times p50", most=self.most_spread)
            )
        if self.most_ms is not None and self.p50_ms > self.most_ms:
            missed.append(_line(f"{self.title}: p50 is {self.p50_ms:.1f} ms", most=self.most_ms))
        lopsided = [each for each in self.evenness if each < LEAST_EVENNESS]
        if lopsided:
            missed.append(f"{self.title}: {len(lopsided)} runs used the workers unevenly")
        if self.unexpected:
            missed.append(f"{self.title}: {self.unexpected} requests did not get a {self.expected}")
        return missed


@dataclass(frozen=True)
class Comparison:
    """The results of the two cases of a `Relation`, and its target."""

    one: Result
    other: Result
    most: float
    by_cpu: bool = False

    @property
    def factor(self) -> float:
        """The time of a request of `one` divided by that of `other`: the median of the rounds.

        With `by_cpu`, the CPU time of a request in the web workers is compared.
        """
        if self.by_cpu:
            return _by_round(lambda run: run.web_us, self.one.bookit, self.other.bookit)
        return _by_round(_rate, self.other.bookit, self.one.bookit)

    def missed(self) -> list[str]:
        """Return the target in a list if it was missed, or else an empty list."""
        return [_line(self._measured(), most=self.most)] if self.factor > self.most else []

    def text(self) -> str:
        """Return the comparison for people."""
        outcome = "missed" if self.missed() else "reached"
        return f"{self._measured()} (at most {self.most:g}: {outcome})"

    def content(self) -> dict[str, Any]:
        """Return the comparison for programs."""
        return {
            "name": self.one.name,
            "other": self.other.name,
            "most": self.most,
            "factor": self.factor,
            "missed": self.missed(),
        }

    def _measured(self) -> str:
        what = "times the CPU time of" if self.by_cpu else "times"
        return f"{self.one.title.strip()}: {self.factor:.2f} {what} {self.other.title.strip()}"


@dataclass(frozen=True)
class Report:
    """All results."""

    setting: dict[str, str]
    results: list[Result] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    reference_memory: list[Memory] = field(default_factory=list)
    jobs: list[JobsDone] = field(default_factory=list)

    def missed(self) -> list[str]:
        """Return all targets that were missed."""
        missed = [line for result in self.results for line in result.missed()]
        missed += [line for comparison in self.comparisons for line in comparison.missed()]
        most = max((worker.resident for worker in self.memory), default=0)
        if most > MAX_MEMORY:
            missed.append(_line(f"memory: {most:.1f} MiB in a worker", most=MAX_MEMORY))
        return missed + [line for done in self.jobs for line in done.missed()]

    def text(self) -> str:
        """Return the report for people."""
        lines = [f"{name + ':':<12}{value}" for name, value in self.setting.items()]
        if self.results:
            lines += ["", *table(self.results), "", *EXPLANATION]
        lines.append("")
        if self.comparisons:
            compared = [f"  {comparison.text()}" for comparison in self.comparisons]
            lines += ["Time of a request, at the same load:", *compared, ""]
        if self.jobs:
            lines += ["Jobs, by one process:", *(f"  {done.text()}" for done in self.jobs), ""]
        if self.results:
            unexpected = sum(result.unexpected for result in self.results)
            lines.append(f"Requests without the expected status: {unexpected}")
            even = sorted(each for result in self.results for each in result.evenness)
            if even:
                lines.append(
                    "CPU time of the least used web worker, divided by the mean of all:"
                    f" median {median(even):.2f}, lowest {even[0]:.2f}, of {len(even)} runs"
                )
            for name, workers in (("web", self.memory), ("reference", self.reference_memory)):
                lines.append(f"Memory of each {name} worker: {'; '.join(map(_memory, workers))}")
            lines.append("")
        missed = self.missed()
        lines.append("All targets reached." if not missed else "Targets not reached:")
        return "\n".join([*lines, *(f"  {line}" for line in missed)])

    def content(self) -> dict[str, Any]:
        """Return the report for programs, with every run."""
        results = [
            {
                **asdict(result),
                "rate": result.rate,
                "reference_rate": result.reference_rate,
                "ratio": result.ratio,
                "cpu_ratio": result.cpu_ratio,
                "p50_ms": result.p50_ms,
                "p99_ms": result.p99_ms,
                "unexpected": result.unexpected,
                "missed": result.missed(),
            }
            for result in self.results
        ]
        return {
            "setting": self.setting,
            "results": results,
            "comparisons": [comparison.content() for comparison in self.comparisons],
            "memory_mib": [asdict(worker) for worker in self.memory],
            "reference_memory_mib": [asdict(worker) for worker in self.reference_memory],
            "jobs": [asdict(done) for done in self.jobs],
            "missed": self.missed(),
        }


HEADINGS = [
    *("", "req/s", "ref. req/s", "ratio", "targets", ""),
    *("p50 ms", "p99 ms", "CPU us", "database", "ref. CPU us", "database", "ratio", "SQL alone"),
]
EXPLANATION = [
    "All numbers are medians of the rounds, except SQL alone. ref.: of the reference. ratio:",
    "BookIt's rate divided by the reference's. CPU us: CPU time of a request in the web workers",
    "and PostgreSQL, in microseconds. database: PostgreSQL's part of this time. The second ratio:",
    "BookIt's CPU time divided by the reference's. SQL alone: requests per second of pgbench with",
    "the same statements, the most that PostgreSQL can do.",
    "A case also counts as missed if it used the workers unevenly or got an unexpected status.",
]


def table(results: list[Result]) -> list[str]:
    """Return the results as lines with aligned columns."""
    rows = [HEADINGS, *(_cells(result) for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cells(result: Result) -> list[str]:
    targets = []
    if result.least_ratio is not None:
        targets.append(f"ratio >= {result.least_ratio}")
    if result.most_spread is not None:
        targets.append(f"p99 <= {result.most_spread:g} p50")
    if result.most_ms is not None:
        targets.append(f"p50 <= {result.most_ms:g} ms")
    missed = "missed" if result.missed() else ""
    return [
        result.title,
        _number(result.rate),
        _number(result.reference_rate),
        "" if result.ratio is None else f"{result.ratio:.2f}",
        ", ".join(targets),
        missed or ("reached" if targets else ""),
        f"{result.p50_ms:.1f}",
        f"{result.p99_ms:.1f}",
        _number(median(run.cpu_us for run in result.bookit)),
        _number(median(run.database_us for run in result.bookit)),
        _number(median(run.cpu_us for run in result.reference) if result.reference else None),
        _number(median(run.database_us for run in result.reference) if result.reference else None),
        "" if result.cpu_ratio is None else f"{result.cpu_ratio:.2f}",
        _number(result.pgbench),
    ]


def _line(measured: str, *, most: float | None = None, least: float | None = None) -> str:
    """Return the line for a missed target."""
    target = f"at most {most:g}" if most is not None else f"at least {least:g}"
    return f"{measured} (target: {target})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _memory(worker: Memory) -> str:
    more = "" if worker.proportional is None else f", {worker.proportional:.0f} proportional"
    return f"{worker.resident:.0f} MiB resident{more}"
