"""Migrations."""

import pytest
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import connection


@pytest.mark.django_db
def test_migrations_may_take_longer_than_a_request():
    def limit():
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            return cursor.fetchone()[0]

    assert limit() == "5s"

    emit_pre_migrate_signal(verbosity=0, interactive=False, db="default")
    assert limit() == "0"

    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")
    assert limit() == "5s"
