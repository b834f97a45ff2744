"""gunicorn's settings, which `manage.py serve` and production both use.

Production runs `gunicorn -c python:bookit.runtime.gunicorn`.
"""

import contextlib
import ctypes
import gc
import logging
import os
from typing import Any

from gunicorn.glogging import Logger

from bookit.metrics import directory
from bookit.runtime.startup import load_settings, why_not_ready

load_settings()
directory.prepare()

# These imports need the settings. `load_settings` comes first, because it reports a wrong setting
# in one line instead of a traceback.
from django.conf import settings  # noqa: E402

from bookit.runtime.listeners import drop_new_connections_at_the_end  # noqa: E402
from bookit.runtime.worker import Worker, spread  # noqa: E402
from bookit.tracing.start import export  # noqa: E402

wsgi_app = "bookit.wsgi"
bind = f"0.0.0.0:{settings.PORT}"

worker_class = Worker
workers = settings.WEB_CONCURRENCY
threads = settings.WEB_THREADS
# The code is loaded once, before the fork, so that workers start immediately and share its memory.
preload_app = True

# The headers that gunicorn trusts from clients on loopback: none. By default, gunicorn trusts
# SCRIPT_NAME, whose value shortens the path, and headers that name the scheme, such as
# X-Forwarded-Proto. Django trusts X-Forwarded-Proto if NUM_PROXIES allows this.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
# The maximum that gunicorn allows, except for 0, which means no limit. A URL may need 12 characters
# for each character of a search text (up to 200 characters) and of a category (up to 100), and
# `category` can be repeated.
limit_request_line = 8190
# Proxies usually keep idle connections for 60 seconds. BookIt keeps them longer, so that the proxy
# closes them first, and never sends a request on a connection that BookIt is closing.
keepalive = 75
# When the server stops, a request has this many seconds to finish.
graceful_timeout = 20
# Each worker reports to gunicorn through a temporary file that it is alive. A busy disk must not
# delay these reports.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
# BookIt does not need gunicorn's control socket, a file in XDG_RUNTIME_DIR or the home folder.
control_socket_disable = True


class QuietLogger(Logger):
    """gunicorn's logger without access lines, which gunicorn would format and then drop."""

    access_log_enabled = False

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Do nothing: the application itself logs requests."""


logger_class = QuietLogger
accesslog = None
loglevel = settings.LOG_LEVEL.lower()
logconfig_dict = {
    **settings.LOGGING,
    "loggers": {
        **settings.LOGGING["loggers"],
        "gunicorn.error": {"handlers": ["console"], "propagate": False},
    },
}


# Constants from glibc's malloc.h.
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8


def when_ready(server: Any) -> None:
    """Prepare for the end of the server. If requests cannot use the database, log why.

    Requests that need the database, or what a pending migration creates, get a 503 until the
    problem is fixed.
    """
    drop_new_connections_at_the_end(server)
    reason = why_not_ready()
    if reason:
        logging.getLogger("bookit.runtime.startup").error(reason)


def pre_fork(server: Any, worker: Any) -> None:
    """Exclude loaded objects from garbage collection.

    A collection would write to these objects. Then the workers would no longer share the memory of
    these objects.
    """
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    """Prepare a worker process. Only workers of BookIt's own class have a `place` in `spread`."""
    # Signals that arrive before the worker has its own handlers; `Worker.init_signals` reads them.
    worker.early_signals = server.SIG_QUEUE
    directory.join(getattr(worker, "place", None))
    export("bookit")
    _return_memory()


def child_exit(server: Any, worker: Any) -> None:
    """Free the place of a worker that has ended."""
    place = getattr(worker, "place", None)
    directory.leave(place, worker.pid)
    spread.free(place)


def _return_memory() -> None:
    """Make glibc return memory to the system. By default, glibc keeps it for later use.

    Hashing a password takes 19 MiB. By default, M_MMAP_THRESHOLD grows to the size of such a block
    when the block is freed. Here, it is fixed at 1 MiB, so every larger block is returned to the
    system as soon as it is freed. With M_ARENA_MAX, all threads share two arenas, which are enough
    for threads that take turns in running Python code.
    """
    with contextlib.suppress(OSError, AttributeError):  # The C library is not glibc.
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1024 * 1024)
        libc.mallopt(M_ARENA_MAX, 2)
