"""The format of an API key: `bk_`, followed by the base64 of 32 random bytes and a seal."""

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from django.utils.crypto import constant_time_compare, salted_hmac

# Programs that look for leaked secrets can recognise keys by this prefix.
PREFIX = "bk_"
# The number of random bytes.
LENGTH = 32
# The number of bytes of the seal: the start of an HMAC of the random bytes with SECRET_KEY. The
# seal is checked before the database is queried, so refusing a made-up key costs no more than
# refusing a made-up access token. An attacker who can write to the database, but does not know
# SECRET_KEY, cannot make a key that works.
SEAL = 8
# Without padding, the base64 of 40 bytes (LENGTH + SEAL) has 54 characters.
SPELLING = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{54}}")
# The number of characters at the start of a key that are stored and shown again later. The other
# characters contain 208 random bits, which stay secret.
SHOWN = len(PREFIX) + 8


def new() -> str:
    """Return a new key."""
    secret = secrets.token_bytes(LENGTH)
    return PREFIX + urlsafe_b64encode(secret + _seal(secret)).rstrip(b"=").decode()


def digest(key: str) -> bytes | None:
    """Return the hash under which a key is stored; None if the key was not made with SECRET_KEY."""
    if not SPELLING.fullmatch(key):
        return None
    decoded = urlsafe_b64decode(key[len(PREFIX) :] + "==")
    secret, seal = decoded[:LENGTH], decoded[LENGTH:]
    return sha256(secret).digest() if constant_time_compare(seal, _seal(secret)) else None


def _seal(secret: bytes) -> bytes:
    return salted_hmac("accounts.keys", secret, algorithm="sha256").digest()[:SEAL]
