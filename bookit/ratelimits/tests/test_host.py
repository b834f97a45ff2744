"""All processes of a host count together, even if a process is killed or stopped."""

import fcntl
import os
import signal
import threading
import time
from contextlib import contextmanager, nullcontext

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from bookit.ratelimits import host
from bookit.ratelimits.host import ENTRIES, HostCounts

LONG = 24 * 3600  # a window of a day: it ends only at midnight UTC


@contextmanager
def forked(run):
    """Run a function in a forked process, as gunicorn does, until the end of a `with` block."""
    pid = os.fork()
    if not pid:
        try:
            run()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def passed_in_processes(hit, processes=4, requests=40):
    """Let several processes count requests at the same time, and return how many requests pass."""
    start, gate = os.pipe()
    results = []
    for _ in range(processes):
        out, into = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(gate)
                os.read(start, 1)  # until the parent closes the other end
                os.write(into, bytes([sum(hit() for _ in range(requests))]))
            finally:
                os._exit(0)
        os.close(into)
        results.append((pid, out))
    os.close(start)
    os.close(gate)
    passed = 0
    for pid, out in results:
        passed += os.read(out, 1)[0]
        os.close(out)
        os.waitpid(pid, 0)
    return passed


def passed_in_threads(hit, threads=4, requests=40):
    """Let several threads count requests at the same time, and return how many requests pass."""
    passed = []
    running = [
        threading.Thread(target=lambda: passed.append(sum(hit() for _ in range(requests))))
        for _ in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(passed)


@pytest.fixture
def interrupted(monkeypatch):
    """Let other processes and threads run after a bucket is locked, and before it is read."""
    find = HostCounts._find

    def pause_and_find(self, bucket, name):
        time.sleep(0.00001)
        return find(self, bucket, name)

    monkeypatch.setattr(HostCounts, "_find", pause_and_find)
    # On a busy machine, a process can keep a bucket locked for longer than the usual patience.
    monkeypatch.setattr(host, "PATIENCE", 10)


def test_four_processes_together_allow_100_of_160_requests(interrupted):
    for _ in range(5):
        counts = HostCounts()
        assert passed_in_processes(lambda counts=counts: counts.hit("ada", 100, LONG)[0]) == 100


def test_four_processes_with_separate_memory_let_all_requests_pass():
    """Control for the test above: the memory storage of `limits` is not shared."""
    limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
    item = RateLimitItemPerMinute(100)
    assert passed_in_processes(lambda: limiter.hit(item, "ada")) == 160


def test_processes_without_the_lock_lose_counts(interrupted, monkeypatch):
    """Control for the first test: without the lock of the bucket, too many requests pass."""
    monkeypatch.setattr(HostCounts, "_lock", lambda self, bucket: False)
    for _ in range(50):
        counts = HostCounts()
        if passed_in_processes(lambda counts=counts: counts.hit("ada", 100, LONG)[0]) > 100:
            return
    pytest.fail("no count was lost")


def test_concurrent_threads_lose_no_count(interrupted):
    for _ in range(5):
        counts = HostCounts()
        assert passed_in_threads(lambda counts=counts: counts.hit("ada", 100, LONG)[0]) == 100


def test_threads_without_a_lock_lose_counts(interrupted, monkeypatch):
    """Control for the test above: without the lock, too many requests pass."""
    monkeypatch.setattr(host, "Lock", nullcontext)
    for _ in range(50):
        counts = HostCounts()
        if passed_in_threads(lambda counts=counts: counts.hit("ada", 100, LONG)[0]) > 100:
            return
    pytest.fail("no count was lost")


@given(st.integers(1, 12), st.lists(st.floats(0, 90), max_size=40))
@settings(max_examples=60)
def test_the_counts_equal_those_of_the_limits_library(limit, pauses):
    counts = HostCounts(buckets=1)
    item = RateLimitItemPerMinute(limit)
    # At a whole second, the previous window can count as exactly one request. `limits` then
    # computes 0.9999999963 and rounds it down to 0. So the clock starts a microsecond later.
    with time_machine.travel(1_900_000_000.000001, tick=False) as clock:
        limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        for pause in pauses:
            clock.shift(pause)
            allowed, window = counts.hit("ada", limit, 60)
            assert allowed == limiter.hit(item, "ada")
            assert window.remaining(limit) == limiter.get_window_stats(item, "ada").remaining


def refuse_to_sleep(seconds):
    raise AssertionError("waited for the lock of a dead process")


def test_a_process_killed_while_it_counts_does_not_block_the_others(monkeypatch):
    counts = HostCounts(buckets=1)
    assert counts.hit("ada", 3, LONG)[0]

    def hold():
        fcntl.lockf(counts._file, fcntl.LOCK_EX, 1, 0)
        counts._memory[-8:] = b"locked.."  # a sign to the parent, which shares this memory
        signal.pause()

    with forked(hold):
        wait_until(lambda: counts._memory[-8:] == b"locked..")
    monkeypatch.setattr(host, "sleep", refuse_to_sleep)
    assert [counts.hit("ada", 3, LONG)[0] for _ in range(3)] == [True, True, False]


def test_a_process_stopped_while_it_counts_delays_the_others_only_briefly():
    counts = HostCounts(buckets=1)

    def hold():
        fcntl.lockf(counts._file, fcntl.LOCK_EX, 1, 0)
        counts._memory[-8:] = b"locked.."  # a sign to the parent, which shares this memory
        signal.pause()

    with forked(hold) as pid:
        wait_until(lambda: counts._memory[-8:] == b"locked..")
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        assert [counts.hit("ada", 2, LONG)[0] for _ in range(3)] == [True, True, False]
        # The additional second allows for a busy machine.
        assert time.monotonic() - began < 3 * host.PATIENCE + 1


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_processes_killed_at_random_leave_a_table_that_works(monkeypatch):
    """A killed process leaves either the old or the new entry, and no bucket stays locked."""
    counts = HostCounts(buckets=1)

    def count_forever():
        number = 0
        while True:
            counts.hit(f"{number % 5}", 10**9, LONG)
            number += 1

    for _ in range(10):
        # This process counts, too, for at least 20 milliseconds.
        with forked(count_forever):
            seen = counts.hit("ada", 10**9, LONG)[1].current
            wait_until(lambda seen=seen: counts.hit("ada", 10**9, LONG)[1].current > seen + 20)
    monkeypatch.setattr(host, "sleep", refuse_to_sleep)
    assert counts.hit("0", 10**9, LONG)[1].current > 1, "the killed processes counted nothing"
    counts.clear("ada")
    assert [counts.hit("ada", 2, LONG)[0] for _ in range(3)] == [True, True, False]


def test_clients_with_many_requests_stay_refused_when_the_table_is_full():
    counts = HostCounts(buckets=1)
    heavy = [f"heavy {number}" for number in range(ENTRIES // 2)]
    for name in heavy * 3:
        assert counts.hit(name, 3, LONG)[0]
    for number in range(20 * ENTRIES):
        assert counts.hit(f"new {number}", 3, LONG)[0]
    assert not any(counts.hit(name, 3, LONG)[0] for name in heavy)


def test_the_entries_of_ended_windows_are_reused():
    counts = HostCounts(buckets=1)
    with time_machine.travel(1_900_000_000, tick=False) as clock:
        for number in range(ENTRIES):
            for _ in range(5):
                counts.hit(f"old {number}", 9, 60)
        clock.shift(121)
        for _ in range(3):
            for number in range(ENTRIES):
                counts.hit(f"new {number}", 3, 60)
        assert not any(counts.hit(f"new {number}", 3, 60)[0] for number in range(ENTRIES))


def test_a_clock_that_is_set_back_locks_nobody_out():
    counts = HostCounts()
    with time_machine.travel(1_900_000_000, tick=False) as clock:
        assert [counts.hit("ada", 1, 60)[0] for _ in range(2)] == [True, False]
        clock.shift(-3600)
        assert [counts.hit("ada", 1, 60)[0] for _ in range(2)] == [True, False]


def test_clear_forgets_the_requests_of_only_one_client():
    counts = HostCounts(buckets=1)
    for name in ("ada", "eve"):
        assert [counts.hit(name, 1, LONG)[0] for _ in range(2)] == [True, False]
    counts.clear("ada")
    counts.clear("nobody")
    assert counts.hit("ada", 1, LONG)[0]
    assert not counts.hit("eve", 1, LONG)[0]


def test_is_time_returns_true_once_for_all_processes():
    counts = HostCounts()
    assert passed_in_processes(lambda: counts.is_time(3600), processes=3, requests=5) == 1
    assert not counts.is_time(3600)
    assert counts.is_time(0.0)
