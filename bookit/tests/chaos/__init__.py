"""Simulates a day of faults: random requests of every role while processes are killed.

    python -m bookit.tests.chaos --seconds 180

It starts PostgreSQL, web and worker as `manage.py serve` does, a mail server, and a receiver of
webhooks. Afterwards `checker` looks for forbidden states in the tables, and `ledger` compares the
tables with the answers that clients got. The modules:

    town      the accounts, calendars and services of the day
    actors    the clients: the random actions of each role, and what they remember
    faults    kills, stops and restarts processes at random
    ledger    records acknowledged changes and checks that they are stored
    checker   checks the invariants of the tables
"""
