"""Workers have about as many connections each, and none waits for one that is stuck."""

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


def test_the_worker_with_more_connections_leaves_the_next_one_to_another(clock: Any) -> None:
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


def test_among_many_connections_a_few_more_do_not_matter(clock: Any) -> None:
    spread = Spread()
    first, second = spread.take(), spread.take()
    spread.note(second, 80)
    assert not spread.should_leave(first, 90)
    assert spread.should_leave(first, 91)


def test_a_worker_that_is_alone_leaves_nothing(clock: Any) -> None:
    spread = Spread()
    assert not spread.should_leave(spread.take(), 100)


def test_a_worker_that_is_silent_or_has_ended_gets_nothing_left(clock: list[float]) -> None:
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


def test_places_are_used_again_and_those_who_find_none_do_without(clock: Any) -> None:
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


def test_what_a_forked_worker_notes_is_seen_by_the_others() -> None:
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
