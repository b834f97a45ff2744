"""A bad day, played by machines: random requests of every role, while processes are killed.

    python -m bookit.tests.chaos --seconds 180

It starts PostgreSQL, web and worker as `manage.py serve` does, with a mail server and a receiver of
webhooks beside them. Afterwards `checker` recomputes from the tables what must never happen, and
`ledger` compares the tables with what the clients were told. The modules:

    town      the accounts, calendars and services of the day
    actors    the clients: what each role tries, and what it remembers
    faults    what is killed, stopped and restarted, and when
    ledger    what was acknowledged, and whether it is still true
    checker   what must be true of the tables, whatever happened
"""
