"""Migrations run without the time limits of requests."""

import pytest
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import connection

from bookit.deadlines import STATEMENT_LIMIT


@pytest.mark.django_db
def test_migrations_may_take_longer_than_a_request():
    def limit():
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            return cursor.fetchone()[0]

    assert limit() == "5s"
    assert connection.connection.patience == STATEMENT_LIMIT == 6

    emit_pre_migrate_signal(verbosity=0, interactive=False, db="default")
    assert limit() == "0"
    assert connection.connection.patience is None

    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")
    assert limit() == "5s"
    assert connection.connection.patience == STATEMENT_LIMIT
