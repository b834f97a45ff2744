"""Repeats transactions that PostgreSQL aborted, for example to resolve a deadlock."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection

from bookit.errors import database_error_facts

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# deadlock_detected and serialization_failure: the transaction changed nothing, so it can run again.
TRANSIENT = {"40P01", "40001"}
TRIES = 3


def retried(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Repeat a transaction that lost a deadlock. Apply this outside `transaction.atomic`."""

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        for _ in range(TRIES - 1):
            try:
                return function(*args, **kwargs)
            except OperationalError as error:
                # A retry is pointless within an outer transaction, which has failed as well.
                if connection.in_atomic_block or database_error_facts(error)[0] not in TRANSIENT:
                    raise
        return function(*args, **kwargs)

    return run
