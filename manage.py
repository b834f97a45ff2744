#!/usr/bin/env python
"""BookIt's command line: `manage.py serve`, `seed_demo` and the other commands."""

import signal
import sys
from collections.abc import Sequence

# Commands that need no database.
WITHOUT_DATABASE = {
    "benchmark",  # starts its own database
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "makemessages",
    "measure_overrides",  # starts its own database
    "preview_mails",
    "spectacular",
    "startapp",
    "version",
}

# Commands that reach the database through procrastinate, whose errors do not say what failed. A
# worker would also retry for half a minute, and log a warning at each attempt. So `main` checks the
# database before it runs them.
WITH_PROCRASTINATE = {"procrastinate", "retry_stalled_jobs"}


def needs_database(arguments: Sequence[str]) -> bool:
    """Return whether the command in `arguments` uses the database."""
    # The arguments after `--` are passed to another program: `manage.py dbshell -- -h localhost`.
    own = list(arguments)
    own = own[: own.index("--")] if "--" in own else own
    if {"-h", "--help", "--version"} & {*own}:
        return False
    if arguments and arguments[0] == "check":
        return any(each.partition("=")[0] == "--database" for each in own)
    return bool(arguments) and arguments[0] not in WITHOUT_DATABASE


def main() -> None:
    """Run the command that is given on the command line."""
    uses_database = needs_database(sys.argv[1:])
    try:
        from bookit.runtime.startup import fail, load_settings, why_not_ready, why_unreachable

        load_settings(database=uses_database)

        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
        from django.db import OperationalError, ProgrammingError

        uses_procrastinate = uses_database and sys.argv[1] in WITH_PROCRASTINATE
        if uses_procrastinate and (reason := why_not_ready()):
            fail(reason)
        try:
            execute_from_command_line(sys.argv)
        except ImproperlyConfigured as error:
            fail(error)
        except ProgrammingError as error:
            from bookit.errors import pending

            # `explain` advises to run `migrate`, which is no help if `migrate` itself fails.
            reason = None if sys.argv[1:2] == ["migrate"] else pending.explain(error)
            if reason is None:
                raise
            fail(reason)
        except OperationalError as error:
            reason = why_unreachable(error)
            if reason is None:
                raise
            fail(reason)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
