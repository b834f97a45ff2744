"""Query plans that are the same whatever earlier tests have left in the tables."""

from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def planning_without(*methods):
    """Make PostgreSQL avoid some methods when it plans queries.

    PostgreSQL chooses plans by the sizes of tables, which include rows that earlier tests rolled
    back. So a query has the plan that a test expects only if all alternatives are excluded.

    Args:
        methods: names from PostgreSQL's settings `enable_…`, for example "seqscan".
    """
    with transaction.atomic(), connection.cursor() as cursor:
        for method in methods:
            cursor.execute(f"SET LOCAL enable_{method} = off")
        yield
        for method in methods:
            cursor.execute(f"SET LOCAL enable_{method} = on")
