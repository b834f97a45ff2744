"""PostgreSQL alone: the SQL of a request, sent by pgbench without any Python in between."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bookit.runtime.embedded_postgres import binary
from bookit.tools.benchmark.load import CONNECTIONS, LoadError


def script(setup: list[str], statements: list[str], values: Mapping[str, str]) -> str:
    """Return a script for pgbench: lines that set its variables, then SQL.

    `values` says by which expressions the parameters of the statements are replaced.
    """
    lines = list(setup)
    for statement in statements:
        filled = re.sub(r"%\((\w+)\)s", lambda match: values[match[1]], statement)
        lines.append(" ".join(filled.split()) + ";")
    return "\n".join(lines) + "\n"


def rate(text: str, url: str, *, seconds: float, directory: Path) -> float:
    """Return how often a second PostgreSQL runs the script for sixteen clients.

    It is run a few times only where `seconds` is less than one, which shows that it works.

    Raises:
        LoadError: pgbench failed, or one of its clients did.
    """
    extent = f"--time={round(seconds)}" if seconds >= 1 else "--transactions=3"
    file = directory / "pgbench.sql"
    file.write_text(text)
    result = subprocess.run(
        [
            *(binary("pgbench"), "--no-vacuum", "--protocol=prepared"),
            *(f"--client={CONNECTIONS}", "--jobs=1", extent),
            *("--define=bookings=0", f"--file={file}", url),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^tps = ([\d.]+)", result.stdout, re.MULTILINE)
    if result.returncode != 0 or found is None:
        said = result.stderr.strip().splitlines() or ["nothing"]
        raise LoadError(f"pgbench failed; it said: {said[-1]}")
    return float(found[1])
