"""Idempotency keys: a repeated POST gets the first response again, and changes nothing."""
