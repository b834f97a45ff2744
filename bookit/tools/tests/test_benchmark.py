"""The benchmark measures what it claims to measure. No test needs a fast machine."""

import importlib
import json
import os
import re
import shutil
import signal
import socket
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from io import BytesIO, StringIO
from itertools import pairwise
from math import inf
from uuid import UUID
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from psycopg.conninfo import make_conninfo

from accounts.tests.factories import UserFactory
from bookings.models import Booking, BookingEvent, Occupancy, Slot
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.api.pagination import DEFAULT_LIMIT
from bookit.runtime import servers
from bookit.tools.benchmark import churn, fill, growth, jobs, lists, load, overrides, pgbench
from bookit.tools.benchmark.cases import CASE_NAMES, MOST_OF_PLAIN, RELATIONS, SERIES, Cases
from bookit.tools.benchmark.fill import Size
from bookit.tools.benchmark.jobs import JobsDone
from bookit.tools.benchmark.load import LoadError, Measurement
from bookit.tools.benchmark.measure import Options, benchmark
from bookit.tools.benchmark.report import Comparison, Report, Result, Run, table
from bookit.tools.benchmark.statements import statements
from bookit.tools.benchmark.usage import Memory
from catalog.tests.factories import ServiceFactory

SMALL = Size(services=20, bookings=500)
NOW = datetime(2026, 12, 1, 10, 30, tzinfo=UTC)


def cases(size=SMALL):
    return Cases(
        size,
        bookers=["booker-1", "booker-2"],
        readers=["reader-1"],
        provider="provider",
        taken=[(fill.key("service", 1), "2030-01-01T10:00:00Z")],
        password="secret",
        admin="admin",
        admin_cookie="session=admin",
        first_day=datetime(2031, 1, 1, tzinfo=UTC),
    )


def run(
    rate=100, *, p50=10.0, p99=20.0, statuses=None, unexpected=0, used=(0.05, 0.05), database=0.0
):
    statuses = statuses or {200: rate}
    return Run(Measurement(1.0, p50, p99, 0, statuses, 0.01), [*used], database, unexpected)


def result(**fields):
    return Result("service", "service detail", 200, 16, least_ratio=0.4, most_spread=5, **fields)


def comparison(one, other, *, most=2, **fields):
    return Comparison(
        Result("long", "long window", 200, 16, bookit=one),
        Result("short", "short window", 200, 16, bookit=other),
        most,
        **fields,
    )


def bodies(requests):
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in requests]


class TestLoad:
    def test_a_request_states_the_length_of_its_body(self):
        request = load.raw_request("POST", "/bookings", token="abc", body={"a": 1})
        head, _, body = request.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /bookings HTTP/1.1\r\nHost: localhost\r\n")
        assert b"Authorization: Bearer abc" in head
        assert b"Content-Length: 8" in head
        assert body == b'{"a": 1}'

    def test_missing_responses_and_responses_of_another_status_are_unexpected(self):
        measured = Measurement(2.0, 1.0, 2.0, 3, {201: 10, 409: 4}, 0.1)
        assert measured.rate == 7
        assert measured.unexpected(201) == 7
        assert measured.unexpected(409) == 13

    @pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
    def test_a_server_that_does_not_respond_raises_not_answered_error(self, tmp_path):
        request = load.raw_request("GET", "/services")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(load.NotAnsweredError):
                load.send([request], port, seconds=1, directory=tmp_path)


class TestCommands:
    def test_without_wrk_the_command_says_how_to_install_it(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(CommandError, match=r"apt install wrk.*brew install wrk"):
            call_command("benchmark", "--only", "service", "mails")

    @pytest.mark.parametrize(
        ("more", "only", "wrong"),
        [
            ({}, ["service", "services-last", "users-q"], "services-last, users-q"),
            ({"growth": "growth.svg"}, ["services-last", "mails", "login"], "mails, login"),
        ],
    )
    def test_names_that_the_run_does_not_measure_are_refused(self, monkeypatch, more, only, wrong):
        # The command must refuse these names before it needs wrk.
        monkeypatch.setenv("PATH", "")
        with pytest.raises(CommandError, match=rf"does not measure: {wrong}\.$"):
            call_command("benchmark", only=only, **more)

    @pytest.mark.parametrize(
        "wrong", [["--services"], ["--bookings"], ["--pgbouncer"], ["--services", "--pgbouncer"]]
    )
    def test_options_that_contradict_growth_are_refused(self, monkeypatch, wrong):
        monkeypatch.setenv("PATH", "")
        given = [each if each == "--pgbouncer" else f"{each}=1000" for each in wrong]
        message = f"Leave out --growth, or leave out: {', '.join(wrong)}."
        with pytest.raises(CommandError, match=re.escape(message)):
            call_command("benchmark", "--growth=growth.svg", *given)

    @pytest.mark.parametrize("command", ["benchmark", "measure_overrides"])
    @pytest.mark.parametrize("number", ["0", "-1", "1.5", "many"])
    def test_only_whole_numbers_of_rounds_are_accepted(self, command, number):
        message = f"argument --rounds: must be a whole number of at least 1, not '{number}'"
        with pytest.raises(CommandError, match=re.escape(message)):
            call_command(command, f"--rounds={number}")

    @pytest.mark.parametrize(
        ("command", "options"), [("benchmark", ["--only", "mails"]), ("measure_overrides", [])]
    )
    def test_a_command_that_is_stopped_leaves_no_files(
        self, monkeypatch, tmp_path, command, options
    ):
        @contextmanager
        def running(directory):
            directory.mkdir()
            # Without a handler of the command, the signal would end the tests.
            assert signal.getsignal(signal.SIGTERM) != usual
            os.kill(os.getpid(), signal.SIGTERM)
            yield "unused"

        usual = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr(f"bookit.tools.management.commands.{command}.running", running)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with pytest.raises(SystemExit):
            call_command(command, *options)
        assert [*tmp_path.iterdir()] == []

    def test_overrides_are_measured_on_linux_only(self, monkeypatch, tmp_path):
        path = "bookit.tools.management.commands.measure_overrides.SCHEDSTAT"
        monkeypatch.setattr(path, str(tmp_path / "{}"))
        with pytest.raises(CommandError, match="needs Linux"):
            call_command("measure_overrides")


class TestCases:
    def test_the_two_cases_of_a_relation_have_the_same_number_of_connections(self):
        by_name = {case.name: case for case in cases().all()}
        for relation in [*RELATIONS, *cases().relations()]:
            assert by_name[relation.name].connections == by_name[relation.other].connections

    def test_no_two_requests_of_several_rounds_book_the_same_time(self):
        known = cases()
        wanted = [tuple(body.values()) for _ in range(3) for body in bodies(known.create(0.0))]
        assert len(wanted) == len(set(wanted)) >= 3 * load.MAX_REQUESTS_PER_SECOND

    def test_no_two_requests_publish_overlapping_slots(self):
        known, slot_length, lisbon = cases(), timedelta(minutes=30), ZoneInfo(fill.ZONE)
        series = [body for _ in range(25) for body in bodies(known.publish(0.0))]
        assert {body["rrule"] for body in series} == {"FREQ=DAILY;COUNT=366"}
        first_course = [body for body in series if body["service_id"] == series[0]["service_id"]]
        firsts = [
            datetime.fromisoformat(body["start_time"]).astimezone(lisbon) for body in first_course
        ]
        starts = sorted(
            (first + timedelta(days=day)).astimezone(UTC) for first in firsts for day in range(366)
        )
        assert len(firsts) == len(series) / fill.COURSES
        assert max(firsts) - min(firsts) > timedelta(days=366)
        assert all(later - earlier >= slot_length for earlier, later in pairwise(starts))

    def test_seats_are_booked_in_every_slot_of_the_classes(self):
        sent = bodies(cases().take_seat(0.0))
        assert len({body["slot_id"] for body in sent}) == len(sent) == fill.CLASS_SLOTS

    def test_free_times_are_searched_over_whole_days(self):
        [request] = cases().find_times(62, SMALL.diaries(2_000), 0.0)
        path = request.decode().split(" ")[1]
        from_, to = map(datetime.fromisoformat, re.findall(r"\d{4}-\d\d-\d\d", path))
        assert (to - from_).days + 1 == 62
        # The second diary has 2,000 appointments. Diaries come after the services of the town.
        second_diary = fill.key("service", SMALL.services + 2)
        assert path.startswith(f"/services/{second_diary}/availability?")

    def test_expressions_replace_the_parameters_in_a_script_of_pgbench(self):
        values = {"a": ":n", "b": "1"}
        script = pgbench.script(["\\set n 7"], ["SELECT\n  %(a)s, %(b)s::int"], values)
        assert script == "\\set n 7\nSELECT\n  :n, 1::int;\n"


class TestReport:
    def test_the_ratio_compares_runs_of_the_same_round(self):
        shown = result(bookit=[run(50), run(10), run(80)], reference=[run(100), run(10), run(100)])
        assert shown.ratio == 0.8
        assert shown.rate == 50
        assert shown.missed() == []

    def test_the_report_lists_missed_targets(self):
        slow = result(
            bookit=[run(39, p50=10, p99=51, statuses={200: 38, 500: 1}, unexpected=1)],
            reference=[run(100)],
        )
        waited = Result("publish", "publish slots", 201, 1, most_ms=150, bookit=[run(p50=151.0)])
        report = Report(
            {},
            [slow, waited],
            [comparison([run(10)], [run(21)])],
            [Memory(90.4, 50.0)],
            [Memory(40.0, None)],
            [
                JobsDone("mails", 149, 1.0, memory_mib=121.0),
                JobsDone("webhooks", 99, 1.0),
                JobsDone("overdue", 100_000, 31.0, longest_lock_s=1.5),
            ],
        )
        assert report.missed() == [
            "service detail: 0.390 of the reference (target: at least 0.4)",
            "service detail: p99 is 5.10 times p50 (target: at most 5)",
            "service detail: 1 requests did not get a 200",
            "publish slots: p50 is 151.0 ms (target: at most 150)",
            "long window: 2.10 times short window (target: at most 2)",
            "memory: 90.4 MiB in a worker (target: at most 90)",
            "mails: 149.0 a second (target: at least 150)",
            "worker: 121.0 MiB (target: at most 120)",
            "webhooks: 99.0 a second (target: at least 100)",
            "overdue: 31.0 s (target: at most 30)",
            "overdue: a lock of 1.50 s (target: at most 1)",
        ]
        assert report.content()["comparisons"][0]["factor"] == 2.1
        assert all(line in report.text() for line in report.missed())

    def test_runs_that_use_the_workers_unevenly_are_reported(self):
        used = [(0.05, 0.05), (0.09, 0.01), (0.02, 0.08), (0.04, 0.06)]
        uneven = result(bookit=[run(used=each) for each in used])
        alone = Result("publish", "publish slots", 200, 1, bookit=[run(used=(0.1, 0.0))])
        report = Report({}, [uneven, alone])
        assert report.missed() == ["service detail: 2 runs used the workers unevenly"]
        assert "median 0.60, lowest 0.20, of 4 runs" in report.text()

    def test_a_comparison_compares_runs_of_the_same_round(self):
        slowed_down = comparison([run(50), run(10), run(40)], [run(100), run(15), run(80)])
        assert slowed_down.factor == 2
        assert slowed_down.missed() == []
        assert slowed_down.text() == "long window: 2.00 times short window (at most 2: reached)"

    def test_lists_are_compared_by_the_cpu_time_of_a_request(self):
        plain = [run(100, used=(0.1, 0.1))]
        filtered = comparison([run(50, used=(0.05, 0.1))], plain, by_cpu=True)
        assert filtered.factor == pytest.approx(1.5)
        assert filtered.text().startswith("long window: 1.50 times the CPU time of short window")

    def test_a_case_without_a_reference_has_empty_cells(self):
        login = Result("login", "login", 200, 16, bookit=[run(30)])
        _heading, line, other = table([login, result(bookit=[run()], reference=[run()])])
        assert line.split() == ["login", "30", "10.0", "20.0", "3,333", "0"]
        assert "reached" in other

    def test_the_cpu_time_of_a_request_includes_the_time_of_postgresql(self):
        bookit, reference = run(100, database=0.05), run(100, used=(0.05, 0.0), database=0.025)
        _heading, line = table([result(bookit=[bookit], reference=[reference])])
        assert line.split()[-5:] == ["1,500", "500", "750", "250", "2.00"]

    def test_the_table_shows_which_cases_missed_a_target(self):
        spread = result(bookit=[run(p50=10, p99=51)], reference=[run()])
        login = Result("login", "login", 200, 16, bookit=[run(unexpected=1)])
        _heading, line, other = table([spread, login])
        assert "ratio >= 0.4, p99 <= 5 p50  missed " in line
        assert "missed" in other


@pytest.fixture
def database_url(transactional_db):
    """Yield the URL of the test's own database, for other processes."""
    parameters = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    conninfo = make_conninfo(**{name: parameters[name] for name in names})
    with psycopg.connect(conninfo) as other:
        known = other.info
        yield f"postgresql://{known.user}:{known.password}@{known.host}:{known.port}/{known.dbname}"


@pytest.fixture
def reference(database_url, settings, monkeypatch):
    """Yield the reference, a module that responds to the measured requests without a framework.

    The reference is connected to the test's own database.
    """
    name = "bookit.tools.benchmark.reference"
    monkeypatch.setenv("SECRET_KEY", settings.SECRET_KEY)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BENCHMARK_STATEMENTS", json.dumps(statements()))
    monkeypatch.setenv("BENCHMARK_LISTS", "{}")
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    with psycopg.connect(database_url, autocommit=True) as module.thread.connection:
        yield module


def anonymous(statement):
    """Return a statement with `?` in place of each parameter.

    BookIt and the reference write parameters differently. The constant 1 in Django's
    `EXISTS (SELECT 1 ...)` is a parameter only in BookIt.
    """
    return re.sub(r"%\(\w+\)s|%s|\$\d+|(?<=EXISTS\(SELECT )1\b", "?", statement)


def sent_by_reference(module, client, method, path, body):
    """Send a request to the reference, and return the status and the statements that it ran."""
    content, statuses = json.dumps(body).encode(), []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "HTTP_HOST": "localhost",
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": BytesIO(content),
        **client._credentials,
    }
    module.application(environ, lambda status, headers: statuses.append(int(status[:3])))
    found = module.thread.connection.execute("SELECT statement FROM pg_prepared_statements")
    return statuses[0], {anonymous(statement) for (statement,) in found}


def sent_by_bookit(client, method, path, body):
    """Send a request to BookIt, and return the status and the statements that it ran."""
    sent = set()

    def note(execute, sql, params, many, context):
        sent.add(anonymous(sql))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        response = client.generic(method, path, json.dumps(body), "application/json")
    return response.status_code, sent


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/services/{}", 200),
        ("GET", "/services", 200),
        ("GET", "/bookings", 200),
        ("POST", "/bookings", 201),
        ("POST", "/bookings", 409),
    ],
)
def test_the_reference_runs_the_statements_of_bookit(reference, api, method, path, status):
    customer, service = UserFactory(), ServiceFactory()
    # Create a full page of services and of bookings, because only a full page needs a count.
    ServiceFactory.create_batch(DEFAULT_LIMIT)
    for hour in range(DEFAULT_LIMIT):
        start = TUESDAY + timedelta(hours=hour)
        BookingFactory(user=customer, service=service, start_time=start)
    client = api if "services" in path else api.as_(customer)
    path, sent = path.format(service.pk), []
    for send, day in ((sent_by_bookit, 1), (partial(sent_by_reference, reference), 2)):
        start = TUESDAY if status == 409 else datetime(2990, 1, day, tzinfo=UTC)
        body = {"service_id": str(service.pk), "start_time": start.isoformat()}
        found, statements_sent = send(client, method, path, body if method == "POST" else {})
        assert found == status
        sent.append(statements_sent)
    assert sent[0] == sent[1] != set()


@pytest.mark.real_passwords
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_benchmark_compares_bookit_with_the_reference(database_url, tmp_path):
    measured = ("free-7-100", "free-50", "create", "create-silent", "publish")
    options = Options(SMALL, seconds=1, rounds=1, workers=1, only=measured)
    report = benchmark(database_url, options, directory=tmp_path, say=lambda message: None)

    one, many, created, without_events, published = report.results
    assert [result.unexpected for result in report.results] == [0] * 5
    assert created.rate > 0
    assert created.reference_rate
    assert created.pgbench
    of_services, of_events = report.comparisons
    assert (of_services.one, of_services.other) == (many, one)
    assert of_services.factor > 1
    assert (of_events.one, of_events.other) == (created, without_events)
    # Each booking has an event, except the bookings that were made while events were disabled.
    events = BookingEvent.objects.filter(type=BookingEvent.Type.CREATED)
    missing = Booking.objects.count() - events.count()
    assert missing >= sum(without_events.bookit[0].measurement.statuses.values()) > 0
    assert report.content()["results"][2]["name"] == "create"
    assert Booking.objects.count() > SMALL.bookings + sum(fill.DIARIES)
    slots = Slot.objects.count() - fill.CLASS_SLOTS
    assert slots % SERIES == 0
    # Clients also publish slots before the measurement, to warm up.
    assert slots // SERIES > sum(published.bookit[0].measurement.statuses.values())


@pytest.mark.real_passwords
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_benchmark_compares_lists_with_the_plain_list(database_url, tmp_path):
    measured = ("bookings", "bookings-status")
    options = Options(SMALL, seconds=1, rounds=1, workers=1, only=measured)
    report = benchmark(database_url, options, directory=tmp_path, say=lambda message: None)

    assert [(each.name, each.unexpected) for each in report.results] == [
        ("bookings", 0),
        ("bookings-status", 0),
    ]
    assert all(result.reference_rate for result in report.results)
    [comparison] = report.comparisons
    assert (comparison.one.name, comparison.other.name) == ("bookings-status", "bookings")
    assert (comparison.most, comparison.by_cpu) == (MOST_OF_PLAIN, True)


def test_the_values_of_recorded_statements_can_be_sent_as_json(reference):
    user, other = UUID(int=1), UUID(int=2)
    values = {"a": [user, other, None, 20], "b": (Decimal("1.50"), timedelta(hours=-2), NOW)}
    encoded = json.loads(json.dumps(lists._encoded(values, user)))
    me = UUID(int=3)
    assert reference.decoded(encoded, me) == {
        "a": [me, other, None, 20],
        "b": [Decimal("1.50"), timedelta(hours=-2), NOW],
    }


class TestGrowth:
    def grown(self, *cpu):
        costs = [[growth.Cost(1.0, each), growth.Cost(1.0, each)] for each in cpu]
        return growth.Line("services", "/services?q=a&b", costs)

    def test_a_line_is_flat_if_neither_its_time_nor_its_cpu_time_grows(self):
        slower = growth.Line("a", "a", [[growth.Cost(1.0, 100)], [growth.Cost(1.4, 100)]])
        assert self.grown(100, 110, 129).is_flat
        assert not self.grown(100, 110, 131).is_flat
        assert not slower.is_flat

    def test_the_picture_and_the_table_show_every_line(self):
        lines = [self.grown(100, 120, 125), self.grown(100, 900, 5_000)]
        results = growth.Growth(growth.SIZES, lines)
        picture = ElementTree.fromstring(growth.picture(results.sizes, results.lines))
        shown = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
        assert shown.count("/services?q=a&b") == 2
        assert {"1.2", "50.0"} <= {*shown}
        assert "At most 1.3 times: 1 of 2 lines." in results.text()
        assert "| /services?q=a&b | 1.0 | 1.0 | 1.0 | 1.0 | 100 | 900 | 5,000 | 50.0 |" in (
            results.text()
        )

    def test_the_bloat_is_not_measured_if_a_run_ends_before_the_simulated_year(self):
        assert "At most 30% empty: not measured" in growth.Growth(growth.SIZES, []).text()

    def test_a_line_whose_requests_got_no_answer_has_dashes_and_is_not_flat(self):
        costs = [[growth.Cost(1.0, 100)], [growth.Cost(2.0, 200)], [growth.NOT_ANSWERED]]
        line = growth.Line("reports", "/reports", costs)
        results = growth.Growth(growth.SIZES, [self.grown(100, 120, 125), line])
        assert "| /reports | 1.0 | 2.0 | - | - | 100 | 200 | - | - |" in results.text()
        assert "At most 1.3 times: 1 of 2 lines." in results.text()
        assert "not answered" in growth.picture(results.sizes, results.lines)
        content = json.loads(json.dumps(results.content(), allow_nan=False))
        assert content["lines"]["/reports"] == [[[1.0, 100]], [[2.0, 200]], [None]]

    @pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
    @pytest.mark.parametrize("reason", [KeyboardInterrupt, LoadError("wrk failed")])
    def test_a_run_that_ends_early_writes_what_it_has_measured(self, tmp_path, monkeypatch, reason):
        def grow(results, **options):
            results.lines.append(self.grown(100, 120, 125))
            raise reason

        monkeypatch.setattr("bookit.tools.management.commands.benchmark.grow", grow)
        picture, file, report = tmp_path / "growth.svg", tmp_path / "growth.json", StringIO()
        with pytest.raises((KeyboardInterrupt, CommandError)):
            call_command("benchmark", growth=picture, json=file, stdout=report)
        assert "/services?q=a&b" in report.getvalue()
        assert [*json.loads(file.read_text())["lines"]] == ["/services?q=a&b"]
        assert "/services?q=a&amp;b" in picture.read_text()

    def test_no_long_list_has_the_name_of_a_case(self):
        assert not {*growth.LONG_LISTS} & {*CASE_NAMES}

    @pytest.mark.real_passwords
    @pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
    def test_growth_is_measured_in_databases_of_two_sizes(
        self, tmp_path, transactional_db, migrate, monkeypatch
    ):
        sizes = [Size(20, 500), Size(40, 1_000)]
        wanted = ("create", "admin-users-q", "error")
        # The list `error` returns only errors. They would look like quick answers if they counted.
        known = growth._lists
        monkeypatch.setattr(growth, "_lists", lambda size: known(size) | {"error": "/unknown"})
        monkeypatch.setattr(growth, "SLOW", 1)
        monkeypatch.setattr(churn, "SETTLE_SECONDS", 0)  # No assertion needs a vacuum.
        monkeypatch.setattr(servers, "migrate", migrate)
        results = growth.Growth(sizes)
        growth.grow(
            results,
            directory=tmp_path,
            seconds=1,
            rounds=1,
            only=wanted,
            say=lambda message: None,
            churn_size=Size(20, 500),
            days=32,
        )
        assert [line.name for line in results.lines] == [*wanted]
        assert [line.unexpected for line in results.lines] == [0] * 3
        errors = results.lines.pop()
        assert errors.costs == [[growth.NOT_ANSWERED]] * 2
        assert all(0 < cost.cpu_us < inf for line in results.lines for [cost] in line.costs)
        assert "`bookings_booking`" in results.text()
        booked = next(each for each in results.bloat if each.name == "bookings_booking")
        assert 0 <= booked.part < 1
        assert booked.updates >= booked.hot_updates > 0


def test_filling_keeps_every_index_constraint_and_trigger(transactional_db):
    def schema():
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
                UNION SELECT indexname, indexdef, true FROM pg_indexes
                UNION SELECT tgname, pg_get_triggerdef(oid), tgenabled = 'O' FROM pg_trigger
                WHERE NOT tgisinternal
                """
            )
            return {*cursor.fetchall()}

    before = schema()
    fill.fill(SMALL, password="not used")
    assert schema() == before
    bookings = Booking.objects.count()
    assert bookings == SMALL.bookings + sum(fill.DIARIES) == BookingEvent.objects.count()
    # The triggers of bookings and slots have copied every occupied period.
    occupying = Booking.objects.filter(active=True, slot=None).count()
    assert Occupancy.objects.count() == occupying + Slot.objects.count()


def test_the_benchmark_measures_jobs_without_wrk(database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(jobs, "OVERDUE", 50)
    monkeypatch.setattr(jobs, "CONFIRMED", 5)
    monkeypatch.setattr(jobs, "EVENTS", 5)
    options = Options(SMALL, only=tuple(jobs.MEASURES))
    report = benchmark(database_url, options, directory=tmp_path, say=lambda message: None)

    mails, webhooks, overdue = report.jobs
    # There are two emails for each booking, and more if bookings expire during the measurement. The
    # job that expires bookings runs at the beginning of each minute.
    assert mails.count >= 10
    assert webhooks.count == 5
    assert webhooks.rate > 0
    assert overdue.count == 50
    assert mails.memory_mib
    assert report.results == []
    assert all(done.text() in report.text() for done in report.jobs)


def test_the_gain_of_every_override_is_measured(transactional_db, monkeypatch):
    monkeypatch.setattr(overrides, "REQUESTS", 12)  # fewer than usual, to save time
    fill.fill(SMALL, password="not used")

    gains = [*overrides.measure(SMALL, rounds=1)]

    assert {gain.override for gain in gains} == {each.name for each in overrides.OVERRIDES}
    assert all(gain.microseconds > 0 for gain in gains)
    # Without this override, DRF's own serializers cost much more than the noise of the measurement.
    [rows] = [gain for gain in gains if gain.case == "services" and "rows" in gain.override]
    assert rows.part > 0.2


def test_a_request_runs_as_many_statements_without_prepared_queries(client, db):
    UserFactory(id=fill.key("user", 1))
    headers = {"Authorization": f"Bearer {fill.access_token(1)}"}
    [override] = [each for each in overrides.OVERRIDES if each.name == "prepared queries"]

    with CaptureQueriesContext(connection) as prepared:
        assert client.get("/bookings", headers=headers).status_code == 200
    with override.without(), CaptureQueriesContext(connection) as plain:
        assert client.get("/bookings", headers=headers).status_code == 200

    assert len(plain) == len(prepared) > 0
