"""gunicorn's settings, for `manage.py serve` and for production alike.

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

# Whoever looks at the settings earlier gets a traceback.
from django.conf import settings  # noqa: E402

from bookit.runtime.worker import Worker, child_exit  # noqa: E402, F401

wsgi_app = "bookit.wsgi"
bind = f"0.0.0.0:{settings.PORT}"

worker_class = Worker
workers = settings.WEB_CONCURRENCY
threads = settings.WEB_THREADS
# Loaded once, before the workers are forked: they start at once and share the memory of the code.
preload_app = True

# By default a peer on loopback may set the path with the headers SCRIPT_NAME and PATH_INFO.
forwarder_headers = ""
# Search words may be 200 characters long, each of them 12 in an address.
limit_request_line = 8190
# Longer than the usual 60 seconds of proxies, so that it is never us who hangs up on a request.
keepalive = 75
# A request may take this long to finish when the server stops.
graceful_timeout = 20
# The heartbeats of the workers, which must not wait for a busy disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
# It would be a socket in the home folder.
control_socket_disable = True


class QuietLogger(Logger):
    """gunicorn's logger, which would make a line of its own for every request, and drop it."""

    access_log_enabled = False

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Do nothing: requests have their lines from the application itself."""


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


# From glibc's malloc.h.
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8


def when_ready(server: Any) -> None:
    """Say what keeps requests from being served; they get a 503 until it is put right."""
    reason = why_not_ready()
    if reason:
        logging.getLogger("bookit.runtime.startup").error(reason)


def pre_fork(server: Any, worker: Any) -> None:
    """Leave what was loaded alone in garbage collections, which would un-share its memory."""
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    """Give memory back: glibc would keep what each thread has ever used at once.

    To hash a password takes 19 MiB. Blocks from 1 MiB on are to come from, and go back to, the
    system (M_MMAP_THRESHOLD), and two arenas are enough for threads that take turns (M_ARENA_MAX).
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1024 * 1024)
        libc.mallopt(M_ARENA_MAX, 2)
