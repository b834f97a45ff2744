"""Simulates a day of faults: random requests of every role while processes are killed or frozen.

    python -m bookit.tests.chaos --seconds 180

The simulation runs `manage.py serve`, PostgreSQL, an SMTP server, and a receiver of webhooks. At
the end, `checker` looks for forbidden states in the tables, `ledger` compares the tables with the
responses that clients got, and `day` with the events that clients and the receiver got. The
modules:

    day       starts everything, lets the clients act, then checks the outcome
    town      the accounts, calendars and services of the day
    actors    the clients: the random actions of each role, and what they remember
    faults    kills processes at random, and freezes and restarts PostgreSQL
    ledger    records acknowledged changes and checks that they are stored
    checker   checks the invariants of the tables
"""
