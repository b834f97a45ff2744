"""Simulates a day of faults: random requests of every role while processes are killed.

    python -m bookit.tests.chaos --seconds 180

The simulation runs `manage.py serve`, PostgreSQL, an SMTP server, and a receiver of webhooks. At
the end, `checker` looks for forbidden states in the tables, and `ledger` compares the tables with
the responses that clients got. The modules:

    day       starts everything, lets the clients act, then checks the outcome
    town      the accounts, calendars and services of the day
    actors    the clients: the random actions of each role, and what they remember
    faults    kills, stops and restarts processes at random
    ledger    records acknowledged changes and checks that they are stored
    checker   checks the invariants of the tables
"""
