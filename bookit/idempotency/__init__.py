"""Idempotency keys: a POST that is sent again is answered again, and changes nothing."""
