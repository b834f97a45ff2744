"""How often and how long this thread has waited for PostgreSQL.

The metrics read and reset these numbers.
"""

import threading


class _Usage(threading.local):
    """The number of waits, and their total duration, since the last reset."""

    waits = 0
    seconds = 0.0
    # The server that answered a catalog read, if there are replicas: "replica" or "primary".
    source = ""


usage = _Usage()
