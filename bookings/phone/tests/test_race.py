"""Staff who override limits compete for the same time, and one of them gets it.

The control makes the same calls without the constraints.
"""

from datetime import timedelta
from functools import partial

import pytest

from accounts.tests.factories import AdminFactory
from bookings.phone import services as phone
from bookings.services import BookingConflict
from bookings.tests.factories import TUESDAY
from bookings.tests.test_races import (
    DOUBLE_BOOKINGS,
    reset_after,
    use_bare_table,
    without_constraints,
)
from bookit.tests.crowd import ask, starting_line, tally
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db(transaction=True)

CROWD = 10


def calls():
    """Return ten calls that hold the same time, which is too soon for customers to book."""
    service = ServiceFactory(min_notice_minutes=24 * 60)
    return [
        partial(
            phone.hold,
            service_id=service.pk,
            start_time=TUESDAY,
            customer=None,
            actor=receptionist,
            at=TUESDAY - timedelta(hours=1),
            overrides_limits=True,
        )
        for receptionist in AdminFactory.create_batch(CROWD)
    ]


def test_one_of_ten_calls_that_override_the_notice_gets_the_time():
    rivals = calls()
    with starting_line("bookings_booking") as set_off:
        outcomes = set_off(rivals)

    assert tally(outcomes) == {None: 1, BookingConflict: CROWD - 1}
    assert ask(DOUBLE_BOOKINGS) == 0


@pytest.mark.one_server("uses a table without shards")
def test_all_ten_calls_get_the_time_without_the_constraints():
    """Control for the test above."""
    rivals = [reset_after(each) for each in calls()]
    with without_constraints(), starting_line("bare.bookings_booking") as set_off:
        assert tally(set_off(rivals, first=use_bare_table)) == {None: CROWD}
        assert ask(DOUBLE_BOOKINGS) == CROWD * (CROWD - 1) / 2
