"""Who is running."""

from contextlib import suppress
from pathlib import Path

import psutil


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of `processes` that still run."""
    return [
        process
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def servers(directory: Path) -> list[psutil.Process]:
    """The PostgreSQL servers that work in `directory`, without their children."""
    found = []
    for process in psutil.process_iter(["name", "status"]):
        if process.info["name"] == "postgres" and process.info["status"] != psutil.STATUS_ZOMBIE:
            with suppress(psutil.Error):
                if process.cwd().startswith(f"{directory}/data"):
                    parent = process.parent()
                    if parent is None or parent.name() != "postgres":
                        found.append(process)
    return found
