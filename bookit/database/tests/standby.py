"""A streaming replica of an embedded PostgreSQL, which a test can pause, freeze and kill."""

import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bookings.tests.workers import until
from bookit.runtime.embedded_postgres import DEFAULT_SETTINGS, _Account, binary
from bookit.tests.plugin import THROWAWAY
from bookit.tests.processes import free_port

# The primary and the replica log all statements, so that a test can see which server has run a
# statement. `THROWAWAY` switches `synchronous_commit` off. With it on, as in production, PostgreSQL
# flushes the log before it reports a commit, so `pg_current_wal_flush_lsn()` includes the commit.
SERVER_SETTINGS = {**THROWAWAY, "synchronous_commit": "on", "log_statement": "all"}


class Standby:
    """A replica, in the folder `home`, of the server whose folder is `primary` and URL is `url`.

    It has a port of its own; the attribute `url` is its own URL.
    """

    def __init__(self, home: Path, primary: Path, url: str) -> None:
        self.home = home
        self.log = home / "server.log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.password = (primary / "password").read_text().strip()
        self.url = url.replace(f":{conninfo_to_dict(url)['port']}/", f":{self.port}/")
        self._account = _Account.of_server(primary)
        self._copy(str(conninfo_to_dict(url)["port"]))

    def _copy(self, port: str) -> None:
        self.home.mkdir(mode=0o755)
        self._account.own(self.home)
        arguments, options = self._account.command(
            [
                *(binary("pg_basebackup"), "--pgdata", str(self.home / "data")),
                *("--checkpoint", "fast", "--wal-method", "stream", "--no-sync"),
                "--write-recovery-conf",
                *("--host", "127.0.0.1", "--port", port, "--username", "postgres"),
            ]
        )
        options["env"] = {**options["env"], "PGPASSWORD": self.password}
        subprocess.run(arguments, **options, check=True, capture_output=True)

    def start(self, **settings: str) -> None:
        """Start the server, and wait until it answers."""
        arguments = [binary("postgres"), "-D", str(self.home / "data")]
        usual = {
            **DEFAULT_SETTINGS,
            **SERVER_SETTINGS,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
        }
        for name, value in {**usual, **settings}.items():
            arguments += ["-c", f"{name}={value}"]
        arguments, options = self._account.command(arguments)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(arguments, **options, stdout=log, stderr=log)
        until(self.answers)

    def answers(self) -> bool:
        """Return whether the server accepts connections."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query, which runs as superuser."""
        place = make_conninfo(self.url, user="postgres", password=self.password)
        with psycopg.connect(place, autocommit=True, connect_timeout=2) as session:
            return session.execute(query).fetchall()

    def pause(self) -> None:
        """Stop applying the changes of the primary. The server keeps answering, with stale rows."""
        self.ask("SELECT pg_wal_replay_pause()")
        until(lambda: self.ask("SELECT pg_get_wal_replay_pause_state()") == [("paused",)])

    def resume(self) -> None:
        """Continue to apply the changes of the primary."""
        self.ask("SELECT pg_wal_replay_resume()")

    def signal(self, number: int) -> None:
        """Send a signal to every process of the server. SIGSTOP freezes it, until SIGCONT."""
        if self.process is not None:
            postmaster = psutil.Process(self.process.pid)
            for each in [postmaster, *postmaster.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):  # A backend may have ended meanwhile.
                    each.send_signal(number)

    def kill(self) -> None:
        """Kill every process of the server, if it runs."""
        if self.process is not None and self.process.poll() is None:
            backends = psutil.Process(self.process.pid).children(recursive=True)
            self.signal(signal.SIGKILL)
            self.process.wait()
            # The backends use the shared memory until they end. Before that, the server could not
            # start again.
            psutil.wait_procs(backends)
        (self.home / "data" / "postmaster.pid").unlink(missing_ok=True)
