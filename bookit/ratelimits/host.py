"""Counts requests in memory that all web processes of a host share.

gunicorn loads the application before it forks its workers, so all workers have the same
`HostCounts` and the same memory. Counting a request needs no server, and takes a few microseconds.

The memory contains a table of fixed size, which consists of buckets. For each limit, a client has
an entry in one bucket. If the bucket is full, a new client replaces the client with the fewest
requests. Therefore a flood of new clients does not remove the clients with many requests. Old
entries do not have to be deleted.

A process locks a bucket with a lock of the kernel, which ends with the process, even if the process
is killed. The counts of an entry are written in one piece, and the name of a new entry is written
last. So a killed process leaves no wrong counts.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from mmap import mmap
from secrets import token_bytes
from struct import Struct
from threading import Lock
from time import monotonic, sleep, time

from bookit.ratelimits.windows import Window

BUCKETS = 4096
ENTRIES = 16  # in each bucket
# The counts of an entry: the start of the current window in seconds, the length of the window, and
# the requests in the previous and in the current window.
COUNTS = Struct("=qIII")
NAME_SIZE = 16  # the size of the hash that identifies a client and its limit
NAMES_SIZE = ENTRIES * NAME_SIZE
BUCKET_SIZE = NAMES_SIZE + ENTRIES * COUNTS.size
FREE = bytes(NAME_SIZE)  # the name in a free entry
MAX_COUNT = 2**32 - 1

# Seconds for which a process waits for another process that has locked a bucket, and the seconds
# between two attempts. A lock is held for microseconds, unless its process is stopped. A stopped
# process must not block the other processes.
PATIENCE = 0.02
PAUSE = 0.0005
# The number of locks between the threads of a process. The kernel's locks only separate processes.
THREAD_LOCKS = 64


class HostCounts:
    """Counts requests, together with all processes that are forked from this process."""

    def __init__(self, buckets: int = BUCKETS) -> None:
        self._buckets = buckets
        self._file = _memory_file()
        size = buckets * BUCKET_SIZE + 8
        os.ftruncate(self._file, size)
        self._memory = mmap(self._file, size)
        # A number after the buckets: the time at which `is_time` last returned True.
        self._last = memoryview(self._memory)[buckets * BUCKET_SIZE :].cast("d")
        # The salt is secret, so clients cannot choose keys that are all in the same bucket.
        self._salt = token_bytes(16)
        self._thread_locks = [Lock() for _ in range(THREAD_LOCKS)]

    def hit(self, key: str, limit: int, length: int) -> tuple[bool, Window]:
        """Count a request if it is within the limit.

        Args:
            key: the client and the limit.
            limit: the number of requests that are allowed in `length` seconds.

        Returns:
            whether the request is within the limit, and the counts after it.
        """
        name, bucket = self._place(key)
        with self._locked(bucket):
            now = time()
            index = self._find(bucket, name)
            window = self._read(bucket, index, length, now)
            allowed = window.used < limit
            if allowed:
                window = window._replace(current=min(window.current + 1, MAX_COUNT))
                self._write(bucket, index, name, window, now)
        return allowed, window

    def clear(self, key: str) -> None:
        """Forget the requests that were counted under a key."""
        name, bucket = self._place(key)
        with self._locked(bucket):
            index = self._find(bucket, name)
            if index is not None:
                self._write_name(bucket, index, FREE)

    def reset(self) -> None:
        """Forget all requests."""
        self._memory[:] = bytes(len(self._memory))

    def is_time(self, pause: float) -> bool:
        """Return True at most once every `pause` seconds, and in only one of the processes."""
        with self._locked(self._buckets):  # a lock that no bucket has
            now = monotonic()
            is_time = not self._last[0] or now - self._last[0] >= pause
            if is_time:
                self._last[0] = now
        return is_time

    def _place(self, key: str) -> tuple[bytes, int]:
        name = blake2b(key.encode(), digest_size=NAME_SIZE, salt=self._salt).digest()
        return name, int.from_bytes(name[:4], "little") % self._buckets

    def _find(self, bucket: int, name: bytes) -> int | None:
        begin = bucket * BUCKET_SIZE
        names = self._memory[begin : begin + NAMES_SIZE]
        at = names.find(name)
        while at % NAME_SIZE and at >= 0:  # a match across two names
            at = names.find(name, at + 1)
        return None if at < 0 else at // NAME_SIZE

    def _read(self, bucket: int, index: int | None, length: int, now: float) -> Window:
        """Return the counts of an entry, or counts of 0 if `index` is None."""
        begin = int(now // length) * length
        previous = current = 0
        if index is not None:
            began, _, before, since = self._counts(bucket, index)
            if began == begin:
                previous, current = before, since
            elif began == begin - length:
                previous = since
        return Window(length, begin + length - now, previous, current)

    def _write(
        self, bucket: int, index: int | None, name: bytes, window: Window, now: float
    ) -> None:
        is_new = index is None
        if index is None:
            index = self._find(bucket, FREE)
            if index is None:
                index = self._least_used(bucket, now)
                self._write_name(bucket, index, FREE)
        at = bucket * BUCKET_SIZE + NAMES_SIZE + index * COUNTS.size
        self._memory[at : at + COUNTS.size] = COUNTS.pack(
            int(now // window.length) * window.length,
            window.length,
            window.previous,
            window.current,
        )
        if is_new:
            self._write_name(bucket, index, name)

    def _write_name(self, bucket: int, index: int, name: bytes) -> None:
        at = bucket * BUCKET_SIZE + index * NAME_SIZE
        self._memory[at : at + NAME_SIZE] = name

    def _counts(self, bucket: int, index: int) -> tuple[int, int, int, int]:
        return COUNTS.unpack_from(
            self._memory, bucket * BUCKET_SIZE + NAMES_SIZE + index * COUNTS.size
        )

    def _least_used(self, bucket: int, now: float) -> int:
        """Return the index of the entry with the fewest requests that still count."""

        def used(index: int) -> int:
            began, length, previous, current = self._counts(bucket, index)
            if now >= began + 2 * length:
                return 0
            return current if now >= began + length else previous + current

        return min(range(ENTRIES), key=used)

    @contextmanager
    def _locked(self, bucket: int) -> Iterator[None]:
        with self._thread_locks[bucket % THREAD_LOCKS]:
            is_locked = self._lock(bucket)
            try:
                yield
            finally:
                if is_locked:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, bucket)

    def _lock(self, bucket: int) -> bool:
        """Lock a bucket and return True, or return False if another process keeps it locked.

        The other process is probably stopped. The caller then continues without the lock. At worst,
        some counts of the bucket become wrong.

        The lock covers a single byte of the file: the byte at the position `bucket`.
        """
        deadline = None
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, bucket)
            except OSError:
                if deadline is None:
                    deadline = monotonic() + PATIENCE
                elif monotonic() > deadline:
                    return False
                sleep(PAUSE)
            else:
                return True


def _memory_file() -> int:
    """Return the descriptor of an unnamed file, which disappears when the last process ends."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("bookit-rate-limits")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
