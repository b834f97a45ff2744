"""Repeats transactions that PostgreSQL aborted, for example to resolve a deadlock."""

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import NotSupportedError, OperationalError, connection

from bookit.errors import database_error_facts

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# deadlock_detected, serialization_failure and feature_not_supported. An aborted transaction has
# changed nothing, so it can run again. After a migration has changed the type of a column, prepared
# statements fail with feature_not_supported. BookIt's `Connection.rollback` drops them, so they are
# prepared again.
TRANSIENT = {"40P01", "40001", "0A000"}
TRIES = 3
# The shortest and the longest pause before a retry, in seconds. A retry without a pause can take
# the same lock again before the transaction that waits for it wakes up, and then loses the same
# deadlock again. The length is random, so that transactions that failed together do not meet again.
MIN_PAUSE, MAX_PAUSE = 0.025, 0.1


def retried(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function so that it runs again if PostgreSQL aborts its transaction.

    The function runs at most `TRIES` times. Apply this outside `transaction.atomic`.
    """

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        for _ in range(TRIES - 1):
            try:
                return function(*args, **kwargs)
            except (OperationalError, NotSupportedError) as error:
                # A retry is pointless within an outer transaction, which has failed as well.
                if connection.in_atomic_block or database_error_facts(error)[0] not in TRANSIENT:
                    raise
            pause = random.uniform(MIN_PAUSE, MAX_PAUSE)  # noqa: S311 - the pause is not a secret
            time.sleep(pause)
        return function(*args, **kwargs)

    return run
