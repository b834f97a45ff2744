"""Simulate a day of faults and print the result; exit with 1 if anything is wrong."""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from bookit.tests.chaos.day import Day, play


def main() -> int:
    """Run the simulation with the arguments of the command line, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bookit.tests.chaos", description=__doc__)
    add = parser.add_argument
    add(
        "--seconds",
        type=float,
        default=180,
        help="duration of requests and faults (default: %(default)s)",
    )
    add("--seed", type=int, help="repeat the choices of actors and faults (default: random)")
    add("--calm", action="store_true", help="run without faults, as the control")
    add("--log", type=Path, metavar="FILE", help="write BookIt's log to this file")
    chosen = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory(prefix="bookit-chaos-") as directory:
        try:
            day: Day = play(Path(directory), seconds=chosen.seconds, seed=seed, calm=chosen.calm)
            sys.stdout.write(day.report())
        finally:
            output = Path(directory, "output")
            if chosen.log and output.exists():
                shutil.copy(output, chosen.log)
    return 1 if day.violations else 0


if __name__ == "__main__":
    sys.exit(main())
