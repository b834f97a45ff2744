"""Django's PostgreSQL backend, with a check for lost connections that costs no round trip."""
