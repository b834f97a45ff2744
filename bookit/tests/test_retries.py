"""Requests that write are tried again if PostgreSQL aborts their transaction."""

import pytest
from django.db import connection
from django.test import Client

from bookit.tests import contract
from bookit.tests.crowd import ask, run
from bookit.tests.valid_requests import BODIES, callers, valid_requests

# After a restart of the sequence, the first statement that writes fails, as if its transaction had
# lost a deadlock. A rollback does not reset a sequence, so the next statement succeeds.
FAIL_ONCE = """
CREATE SEQUENCE fail_once;
CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('fail_once') = 1 THEN
        RAISE EXCEPTION 'on purpose' USING ERRCODE = 'deadlock_detected';
    END IF;
    RETURN NULL;
END $$;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT relid::regclass::text FROM pg_stat_user_tables LOOP
        EXECUTE format('CREATE TRIGGER fail_once BEFORE INSERT OR UPDATE OR DELETE ON %s'
            ' EXECUTE FUNCTION fail_once()', name);
    END LOOP;
END $$
"""


@pytest.fixture
def fail_once(transactional_db):
    """Return a function after whose call the first statement that writes fails."""
    with connection.cursor() as cursor:
        cursor.execute(FAIL_ONCE)
    run("SELECT nextval('fail_once')")  # Before the first restart, no statement fails.
    yield lambda: run("ALTER SEQUENCE fail_once RESTART")
    run("DROP FUNCTION fail_once CASCADE")
    run("DROP SEQUENCE fail_once")


def send(request, caller):
    """Return the status of the response to a request, and whether the request wrote anything."""
    response = Client().generic(
        request.method,
        request.target,
        request.content,
        content_type="application/json",
        **caller.headers,
    )
    return response.status_code, ask("SELECT is_called FROM fail_once")


def test_every_request_that_writes_is_tried_again_after_a_deadlock(api, fail_once):
    """The service that a new endpoint calls needs `@retried`, or this test fails.

    The row that the path names must be in a state that the request can change; see `IN_PATH` in
    `valid_requests.py`.
    """
    unsafe = [each for each in contract.documented_operations() if not each.startswith("GET ")]
    for label in unsafe:
        for number in range(len(BODIES.get(label, [None]))):
            admin = callers(api, only={"admin"})["admin"]
            request = valid_requests(label, admin)[number]
            fail_once()
            status, wrote = send(request, admin)
            assert wrote, request
            assert status in (200, 201, 202, 204), request
            # Free the names that the next request may use.
            run("UPDATE accounts_user SET email = id || '@example.com'")
            run("UPDATE auth_group SET name = id")
    assert len(unsafe) > 40
