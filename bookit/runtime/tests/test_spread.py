"""Workers get about the same number of connections, and do not wait for a stuck worker."""

import os
from typing import Any

import pytest

from bookit.runtime import spread as module
from bookit.runtime.spread import SILENCE, Spread


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_a_worker_with_more_connections_leaves_the_next_connection_to_another_worker(
    clock: Any,
) -> None:
    spread = Spread()
    first, second = spread.take(), spread.take()
    spread.note(first, 0)
    spread.note(second, 0)
    assert not spread.should_leave(first, 0)
    spread.note(first, 1)
    assert spread.should_leave(first, 1)
    assert not spread.should_leave(second, 0)
    spread.note(second, 1)
    assert not spread.should_leave(first, 1)


def test_a_small_difference_does_not_matter_among_many_connections(clock: Any) -> None:
    spread = Spread()
    first, second = spread.take(), spread.take()
    spread.note(second, 80)
    assert not spread.should_leave(first, 90)
    assert spread.should_leave(first, 91)


def test_a_single_worker_accepts_every_connection(clock: Any) -> None:
    spread = Spread()
    only = spread.take()
    spread.note(only, 0)
    assert not spread.should_leave(only, 100)


def test_no_connection_is_left_to_a_silent_or_ended_worker(clock: list[float]) -> None:
    spread = Spread()
    first, second = spread.take(), spread.take()
    spread.note(second, 0)
    assert spread.should_leave(first, 1)
    clock[0] += SILENCE
    assert not spread.should_leave(first, 1)
    spread.note(second, 0)
    assert spread.should_leave(first, 1)
    spread.free(second)
    assert not spread.should_leave(first, 1)


def test_places_are_reused_and_a_worker_without_a_place_accepts_everything(clock: Any) -> None:
    spread = Spread(places=2)
    first, second = spread.take(), spread.take()
    none = spread.take()
    assert (first, second, none) == (0, 1, None)
    spread.note(none, 5)
    spread.note(first, 0)
    assert not spread.should_leave(none, 5)
    spread.free(first)
    spread.free(none)
    assert spread.take() == first


def test_a_process_sees_the_counts_of_its_children() -> None:
    spread = Spread()
    first, second = spread.take(), spread.take()
    spread.note(first, 1)
    assert not spread.should_leave(first, 1)
    child = os.fork()
    if not child:
        spread.note(second, 0)
        os._exit(0)
    os.waitpid(child, 0)
    assert spread.should_leave(first, 1)
