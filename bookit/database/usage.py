"""How often and how long this thread has waited for PostgreSQL, and what answered a catalog read.

The metrics read and reset these values.
"""

import threading


class _Usage(threading.local):
    """What has happened in this thread since the last reset."""

    # The number of waits for PostgreSQL, and their total duration.
    waits = 0
    seconds = 0.0
    # What answered a catalog read, if there are replicas: "replica" or "primary"; otherwise empty.
    source = ""


usage = _Usage()
