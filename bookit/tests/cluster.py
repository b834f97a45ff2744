"""A Citus cluster for tests: a coordinator and two workers on this machine."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg

from bookit.runtime.embedded_postgres import DEFAULT_SETTINGS, _Account
from bookit.tests.processes import free_port

WORKERS = ("one", "two")
NAMES = ("coordinator", *WORKERS)
# The environment variable with the folders of the cluster that pytest-xdist's workers share: its
# `home` and its `prefix`, separated by a colon.
VARIABLE = "BOOKIT_TEST_CITUS"
SETTINGS = {
    **DEFAULT_SETTINGS,
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_preload_libraries": "citus",
    "max_connections": "300",
    "max_prepared_transactions": "600",
    "wal_level": "logical",
    "citus.node_conninfo": "sslmode=disable",
    "citus.shard_count": "8",
}


class Cluster:
    """Servers in the folders `coordinator`, `one` and `two` of `home`.

    Args:
        prefix: the folder of a PostgreSQL with Citus, which contains `bin`.
    """

    def __init__(self, home: Path, prefix: Path) -> None:
        self.home, self.prefix = home, prefix
        self._account = _Account.of_server(home)

    @classmethod
    def running(cls) -> "Cluster | None":
        """Return the cluster that this test run uses, or None."""
        found = os.environ.get(VARIABLE)
        if not found:
            return None
        home, _, prefix = found.partition(":")
        return cls(Path(home), Path(prefix))

    @classmethod
    def create(cls, prefix: Path) -> "Cluster":
        """Create the servers in a temporary folder, and start them."""
        home = Path(tempfile.mkdtemp(prefix="bookit-citus-"))
        home.chmod(0o755)
        cluster = cls(home, prefix.resolve())
        for name in NAMES:
            (home / name).mkdir()
            cluster._account.own(home / name)
            create = ["initdb", "--pgdata", str(home / name / "data"), "--username", "postgres"]
            cluster._run([*create, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8"])
            (home / name / "port").write_text(str(free_port()))
            cluster.start(name)
        os.environ[VARIABLE] = f"{home}:{cluster.prefix}"
        return cluster

    def port(self, name: str) -> int:
        """Return the port of a server."""
        return int((self.home / name / "port").read_text())

    def url(self, name: str = "coordinator", database: str = "postgres") -> str:
        """Return the URL of a database on a server."""
        return f"postgresql://postgres:trust@127.0.0.1:{self.port(name)}/{database}"

    @contextmanager
    def connected(self, database: str) -> Iterator[None]:
        """Use a database on the coordinator during a `with` block; it need not be distributed."""
        # Not imported at the top, because the settings need the URL of the running cluster.
        from django.db import connection

        from bookit.database.citus import nodes
        from bookit.runtime.servers import connected_to

        with connected_to(self.url(database=database)):
            nodes.is_distributed.cache_clear()
            try:
                yield
            finally:
                connection.close()
                nodes.is_distributed.cache_clear()

    def start(self, name: str) -> None:
        """Start a server, and wait until it answers."""
        options = {**SETTINGS, "port": str(self.port(name))}
        given = " ".join(f"-c {key}='{value}'" for key, value in options.items())
        log = str(self.home / name / "server.log")
        data = str(self.home / name / "data")
        self._run(["pg_ctl", "--pgdata", data, "--wait", "--log", log, "-o", given, "start"])

    def kill(self, name: str) -> None:
        """Kill every process of a server, as a power cut does."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            pid = (self.home / name / "data" / "postmaster.pid").read_text().split()[0]
            postmaster = psutil.Process(int(pid))
            processes = [postmaster, *postmaster.children(recursive=True)]
            for each in processes:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGKILL)
            psutil.wait_procs(processes, timeout=10)
        (self.home / name / "data" / "postmaster.pid").unlink(missing_ok=True)

    @contextmanager
    def unreachable(self, name: str) -> Iterator[None]:
        """Drop every packet to and from a server, as if its host had lost its network.

        This needs root, and the program `iptables`.
        """
        rules = [
            ["INPUT", "--protocol", "tcp", port, str(self.port(name)), "--jump", "DROP"]
            for port in ("--destination-port", "--source-port")
        ]
        with ExitStack() as stack:
            for rule in rules:
                subprocess.run(["iptables", "--insert", *rule], check=True)
                delete = ["iptables", "--delete", *rule]
                stack.callback(partial(subprocess.run, delete, check=True))
            yield

    def back_up(self, name: str, *options: str) -> None:
        """Copy the files of a running server to its folder `base`."""
        base, port = str(self.home / name / "base"), str(self.port(name))
        copy = ["pg_basebackup", "--pgdata", base, "--checkpoint", "fast", "--no-sync", *options]
        self._run([*copy, "--host", "127.0.0.1", "--port", port, "--username", "postgres"])

    def add_replica(self) -> str:
        """Start a streaming replica of the coordinator, and return its name."""
        self.back_up("coordinator", "--write-recovery-conf")
        (self.home / "replica").mkdir()
        self._account.own(self.home / "replica")
        (self.home / "coordinator" / "base").rename(self.home / "replica" / "data")
        (self.home / "replica" / "port").write_text(str(free_port()))
        self.start("replica")
        return "replica"

    def archive(self, name: str) -> None:
        """Copy the write-ahead log of a running server to its folder `archive`."""
        with psycopg.connect(self.url(name), autocommit=True) as session:
            session.execute("SELECT pg_switch_wal()")
        shutil.copytree(self.home / name / "data" / "pg_wal", self.home / name / "archive")

    def recover(self, name: str, point: str) -> None:
        """Restore a killed server from its copy in `base`, and recover it to a restore point."""
        home = self.home / name
        shutil.rmtree(home / "data")
        (home / "base").rename(home / "data")
        with (home / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"restore_command = 'cp {home}/archive/%f %p'\n")
            settings.write(f"recovery_target_name = '{point}'\n")
            settings.write("recovery_target_action = 'promote'\n")
        (home / "data" / "recovery.signal").touch()
        self._account.own(home / "data" / "recovery.signal")
        self.start(name)

    def destroy(self) -> None:
        """Stop the servers, and delete their data."""
        for name in NAMES:
            self.kill(name)
        shutil.rmtree(self.home, ignore_errors=True)
        os.environ.pop(VARIABLE, None)

    def distribute(self, database: str) -> None:
        """Distribute a database of the coordinator. All migrations must have been applied to it."""
        for name in WORKERS:
            with psycopg.connect(self.url(name), autocommit=True) as session:
                session.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
                session.execute(f'CREATE DATABASE "{database}"')
            with psycopg.connect(self.url(name, database), autocommit=True) as session:
                session.execute("CREATE EXTENSION citus")
        with psycopg.connect(self.url(database=database), autocommit=True) as session:
            session.execute("CREATE EXTENSION citus")
            place = ["127.0.0.1", self.port("coordinator")]
            session.execute("SELECT citus_set_coordinator_host(%s, %s)", place)
            for name in WORKERS:
                session.execute("SELECT citus_add_node(%s, %s)", ["127.0.0.1", self.port(name)])

        from bookit.database.citus import conversion

        conversion.distribute()

    def _run(self, arguments: list[str]) -> None:
        program = str(self.prefix / "bin" / arguments[0])
        command, options = self._account.command([program, *arguments[1:]])
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        if arguments[0] == "pg_ctl":
            # `subprocess.run` would wait for a pipe that the server keeps open.
            quiet["stderr"] = subprocess.DEVNULL
        subprocess.run(command, **options, **quiet, check=True)
