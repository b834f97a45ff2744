"""Real workers, each in its own process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
from django.db import connection

from bookit.runtime.startup import BASE_DIR

# A test that waits longer than this many seconds has failed.
PATIENCE = 40


def until(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Wait until a condition is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition is not true after {seconds} s"
        time.sleep(0.05)


def database_url() -> str:
    """Return the URL of this test's database."""
    found = connection.settings_dict
    return "postgresql://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**found)


class Worker:
    """A running `manage.py procrastinate worker`. It sends no emails unless `EMAIL_URL` is given.

    Args:
        output: the file to which the process appends what it writes.
        url: the URL of another database than that of the test.
        command: another `manage.py` command that starts workers.
        variables: environment variables of the process.
    """

    def __init__(
        self,
        output: Path,
        *,
        url: str = "",
        command: Sequence[str] = ("procrastinate", "worker"),
        **variables: str,
    ) -> None:
        self.url = url or database_url()
        self.output = output
        with output.open("a") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(BASE_DIR / "manage.py"), *command],
                env={
                    **os.environ,
                    "DATABASE_URL": self.url,
                    "DATABASE_POOL_SIZE": "",
                    "EMAIL_URL": "dummymail://",
                    **variables,
                },
                stdout=file,
                stderr=file,
            )

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """Return the rows of a query, which runs outside Django's connection and transaction."""
        with psycopg.connect(self.url, autocommit=True) as session:
            return session.execute(query).fetchall()

    def jobs(self, task: str) -> list[object]:
        """Return the states of the jobs of a task, oldest first. Successful jobs are deleted."""
        rows = self.ask(
            f"SELECT status FROM procrastinate_jobs WHERE task_name = '{task}' ORDER BY id"
        )
        return [status for (status,) in rows]

    def state(self, job: int) -> object:
        """Return the state of a job; None if it has succeeded, because it is then deleted."""
        rows = self.ask(f"SELECT status FROM procrastinate_jobs WHERE id = {job}")
        return rows[0][0] if rows else None

    def end(self) -> int:
        """Stop the worker as an operator would, and return its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(PATIENCE)
