"""The rules for idempotency keys.

While a request is processed, it holds an advisory lock on its key, so another request with this key
is refused at once. The lock ends with the transaction, even if the process or its host crashes. The
transaction that makes the requested changes also stores the response. The constraint
`idempotency_key_used_once` ensures that only one request with a key can change anything.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from psycopg.rows import class_row

from bookit.database.batches import delete_in_batches
from bookit.database.rows import fetch
from bookit.errors import Conflict, Unprocessable
from bookit.idempotency.models import KeptResponse

# How long a response is kept.
KEPT = timedelta(days=1)


class IdempotencyInProgress(Conflict):
    """A request with this Idempotency-Key is still being processed. Try again shortly."""

    code = "idempotency_in_progress"


class IdempotencyKeyReused(Unprocessable):
    """This Idempotency-Key was used for a different request. Use a new key for each request."""

    code = "idempotency_key_reused"


class Kept(NamedTuple):
    """What is known about an idempotency key.

    Args:
        is_free: False if another request with the key is in progress. All fields below are then
            None.
        fingerprint: the hash of the request whose response is kept. If no response is kept, this
            and all fields below are None.
    """

    is_free: bool
    fingerprint: bytes | None
    status: int
    location: str
    body: bytes


# Locks an idempotency key for this transaction if it is free, and returns the response that is kept
# for it.
#
# Parameters: owner uuid, key text, since timestamptz (older responses are ignored).
# Columns: those of `Kept`; always one row.
# Invariant: the snapshot may be older than the lock, so the statement does not see a response that
#   another transaction keeps after the snapshot. In this case, KEEP returns no row.
CLAIM = """
WITH lock AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(uuid_hash_extended(
        %(owner)s::uuid, hashtextextended(%(key)s::text, 0)
    )) AS is_free
)
SELECT is_free, fingerprint, status, location, body
FROM lock LEFT JOIN bookit_keptresponse
    ON is_free AND owner = %(owner)s::uuid AND key = %(key)s::text
    AND created_at > %(since)s::timestamptz
"""

# Keeps a response, unless a response is already kept for the same key.
#
# Parameters: user_id uuid, owner uuid, key text, fingerprint bytea, status int, location text,
#   body bytea, at timestamptz (now), since timestamptz (older responses are replaced).
# Columns: id bigint; no row if a response is already kept.
# Invariant: idempotency_key_used_once.
KEEP = """
INSERT INTO bookit_keptresponse AS kept
    (user_id, owner, key, fingerprint, status, location, body, created_at)
VALUES (%(user_id)s::uuid, %(owner)s::uuid, %(key)s::text, %(fingerprint)s::bytea,
    %(status)s::int, %(location)s::text, %(body)s::bytea, %(at)s::timestamptz)
ON CONFLICT (owner, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, status = excluded.status, location = excluded.location,
    body = excluded.body, created_at = excluded.created_at
WHERE kept.created_at <= %(since)s::timestamptz
RETURNING id
"""

# Deletes the responses to the requests of a user, and the responses that contain the user's id. If
# somebody else creates or books something for a user, the response contains the user's data.
#
# Parameters: user_id uuid, text bytea (the same id as it is written in a response).
# Columns: none.
FORGET = """
DELETE FROM bookit_keptresponse
WHERE user_id = %(user_id)s::uuid OR position(%(text)s::bytea IN body) > 0
"""


def claim(*, owner: UUID, key: str, fingerprint: bytes, at: datetime) -> Kept | None:
    """Reserve a key for the caller's transaction.

    Args:
        owner: the id of the API key that authenticated the request, or of the user if there was no
            API key.

    Returns:
        the response that is kept for this key, or None if no response is kept.

    Raises:
        IdempotencyInProgress: another request with this key is in progress.
        IdempotencyKeyReused: the kept response belongs to a different request.
    """
    values = {"owner": owner, "key": key, "since": at - KEPT}
    [kept] = fetch(CLAIM, values, class_row(Kept))
    if not kept.is_free:
        raise IdempotencyInProgress
    if kept.fingerprint is None:
        return None
    if kept.fingerprint != fingerprint:
        raise IdempotencyKeyReused
    return kept


def keep(
    *,
    user_id: UUID,
    owner: UUID,
    key: str,
    fingerprint: bytes,
    status: int,
    location: str,
    body: bytes,
    at: datetime,
) -> bool:
    """Keep the response to a request in the caller's transaction.

    Returns:
        whether the response was kept. False if a response is already kept for this key.
    """
    values: dict[str, Any] = {
        "user_id": user_id,
        "owner": owner,
        "key": key,
        "fingerprint": fingerprint,
        "status": status,
        "location": location,
        "body": body,
        "at": at,
        "since": at - KEPT,
    }
    return bool(fetch(KEEP, values))


def forget(*, user_id: UUID) -> None:
    """Delete the responses that can contain personal data of a user."""
    with connection.cursor() as cursor:
        cursor.execute(FORGET, {"user_id": user_id, "text": str(user_id).encode()})


def prune(*, at: datetime) -> int:
    """Delete the responses that are no longer replayed, and return their number."""
    old = KeptResponse.objects.filter(created_at__lte=at - KEPT)
    return delete_in_batches(old, by="created_at")
