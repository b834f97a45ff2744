"""How long this thread has waited for PostgreSQL. The metrics read and reset these numbers."""

import threading


class _Usage(threading.local):
    """The waits of this thread since they were last reset."""

    waits = 0
    seconds = 0.0


usage = _Usage()
