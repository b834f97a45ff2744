"""How many requests remain, and how long a client has to wait."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from bookit.ratelimits.windows import Window

LENGTH = 60


def after(window, seconds):
    """Return the window of a client that makes no request for `seconds` seconds."""
    left = window.left - seconds
    if left > 0:
        return window._replace(left=left)
    if left > -LENGTH:
        return Window(LENGTH, left + LENGTH, window.current, 0)
    return Window(LENGTH, LENGTH, 0, 0)


windows = st.builds(
    Window,
    st.just(LENGTH),
    st.floats(0.01, LENGTH),
    st.integers(0, 40),
    st.integers(0, 40),
)


@given(windows, st.integers(1, 50))
def test_one_more_request_is_possible_after_the_wait_but_not_before(window, limit):
    wait = window.wait(limit)
    remaining = window.remaining(limit)
    if not window.used:
        assert (wait, remaining) == (0, limit)
        return
    assert 0 <= wait <= 2 * LENGTH
    assert after(window, wait + 0.001).remaining(limit) > remaining
    if wait > 0.002:
        assert after(window, wait - 0.001).remaining(limit) <= remaining


def test_the_wait_of_a_client_counts_down():
    window = Window(LENGTH, 60.0, 0, 3)
    assert [ceil(after(window, pause).wait(10)) for pause in (0, 1, 20, 59)] == [60, 59, 40, 1]
