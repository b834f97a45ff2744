"""Kills processes, and kills, freezes and restarts PostgreSQL, during a simulated day."""

import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from bookit.runtime.embedded_postgres import acquire, release

# Ranges in seconds: the pause between two faults, and the time for which PostgreSQL is frozen.
PAUSES = (1.5, 4.0)
FROZEN = (1.0, 7.0)

# The faults and their relative frequencies.
FAULTS = {
    "kill -9 of a web worker": 4,
    "kill -9 of a queue worker": 4,
    "kill -9 of a child of PostgreSQL": 1,
    "kill -9 of PostgreSQL": 1,
    "restart of PostgreSQL": 1,
    "PostgreSQL frozen": 1,
}


class Faults(threading.Thread):
    """Causes one fault after another until `stopping` is set.

    Args:
        serve: the process of `manage.py serve`.
        directory: the directory of the embedded PostgreSQL, as for `acquire`.
    """

    def __init__(self, serve: psutil.Process, directory: Path, seed: int) -> None:
        super().__init__(name="faults")
        self.serve, self.directory = serve, directory
        self.rng = random.Random(seed)
        self.stopping = threading.Event()
        self.done: Counter[str] = Counter()

    def run(self) -> None:
        """Try each fault once, and after that random faults, with pauses between them."""
        to_come = [*FAULTS]
        self.rng.shuffle(to_come)
        names, weights = zip(*FAULTS.items(), strict=True)
        while not self.stopping.wait(self.rng.uniform(*PAUSES)):
            fault = to_come.pop() if to_come else self.rng.choices(names, weights)[0]
            # There may be no process to choose from, or the chosen process may just have ended.
            with suppress(psutil.NoSuchProcess, IndexError, ProcessLookupError):
                self.cause(fault)
                self.done[fault] += 1

    def cause(self, fault: str) -> None:
        """Cause `fault`. If it froze or ended PostgreSQL, let PostgreSQL run again."""
        if fault == "kill -9 of a web worker":
            self.rng.choice(self.web_workers()).kill()
        elif fault == "kill -9 of a queue worker":
            self.rng.choice(self.queue_workers()).kill()
        elif fault == "kill -9 of a child of PostgreSQL":
            self.rng.choice(self.postgres().children()).kill()
        elif fault == "PostgreSQL frozen":
            self.freeze()
        else:
            # SIGINT is PostgreSQL's fast shutdown.
            number = signal.SIGKILL if fault.startswith("kill") else signal.SIGINT
            self.restart(number)

    def web_workers(self) -> list[psutil.Process]:
        """Return gunicorn's worker processes."""
        return [child for each in self.started("gunicorn") for child in each.children()]

    def queue_workers(self) -> list[psutil.Process]:
        """Return the queue worker processes."""
        return self.started("procrastinate")

    def started(self, name: str) -> list[psutil.Process]:
        """Return the children of `serve` whose command line contains `name`."""
        found = []
        for child in self.serve.children():
            with suppress(psutil.NoSuchProcess):
                if name in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def postgres(self) -> psutil.Process:
        """Return PostgreSQL's main process."""
        pid = int((self.directory / "data" / "postmaster.pid").read_text().splitlines()[0])
        return psutil.Process(pid)

    def freeze(self) -> None:
        """Suspend PostgreSQL for some seconds: it neither responds nor closes connections."""
        main = self.postgres()
        stopped = [main, *main.children()]
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(self.rng.uniform(*FROZEN))
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def restart(self, number: signal.Signals) -> None:
        """End PostgreSQL with a signal, and start it again on the same port."""
        main = self.postgres()
        children = main.children()
        main.send_signal(number)
        main.wait(30)
        psutil.wait_procs(children, timeout=30)
        acquire(self.directory)
        release(self.directory)  # The server keeps running, because `play` still uses it.
