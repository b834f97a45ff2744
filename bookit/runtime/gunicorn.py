"""gunicorn's settings, for both `manage.py serve` and production.

gunicorn -c python:bookit.runtime.gunicorn
"""

import contextlib
import ctypes
import gc
import logging
import os
from typing import Any

from gunicorn.glogging import Logger

from bookit.runtime.startup import load_settings, why_not_ready

load_settings()

# These imports need the settings. Above `load_settings`, a mistake in them would be a traceback.
from django.conf import settings  # noqa: E402

from bookit.runtime.worker import Worker, child_exit  # noqa: E402, F401

wsgi_app = "bookit.wsgi"
bind = f"0.0.0.0:{settings.PORT}"

worker_class = Worker
workers = settings.WEB_CONCURRENCY
threads = settings.WEB_THREADS
# The code is loaded once, before the fork, so that workers start at once and share its memory.
preload_app = True

# By default, a peer on loopback may set the path with the headers SCRIPT_NAME and PATH_INFO.
forwarder_headers = ""
# A search text may have 200 characters, and each can take 12 in an encoded address.
limit_request_line = 8190
# Longer than the usual 60 seconds of proxies, so that the proxy closes idle connections first and
# never sends a request on a connection that BookIt is closing.
keepalive = 75
# When the server stops, a request has this many seconds to finish.
graceful_timeout = 20
# The workers' heartbeats must not wait for a busy disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
# The control socket would be in the home folder.
control_socket_disable = True


class QuietLogger(Logger):
    """gunicorn's logger, which otherwise formats an access line for each request and drops it."""

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
    """Log what prevents BookIt from serving requests; they get a 503 until it is fixed."""
    reason = why_not_ready()
    if reason:
        logging.getLogger("bookit.runtime.startup").error(reason)


def pre_fork(server: Any, worker: Any) -> None:
    """Exclude loaded objects from garbage collection, which would unshare their memory."""
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    """Make glibc return memory to the system. By default, it keeps the peak use of each thread.

    Hashing a password takes 19 MiB. Blocks of 1 MiB and more come from the system and go back to it
    (M_MMAP_THRESHOLD). Two arenas are enough for threads that take turns (M_ARENA_MAX).
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1024 * 1024)
        libc.mallopt(M_ARENA_MAX, 2)
