"""`manage.py benchmark`: measures BookIt, a bare WSGI function, and PostgreSQL alone.

The benchmark is run by hand. Its modules:

    measure     runs the benchmark without `--growth`, one step after the other
    fill        fills a database with services, users and bookings
    statements  the SQL of some of the measured requests, taken from the apps
    reference   the WSGI function that BookIt is compared with
    cases       the requests that are measured
    lists       requests for lists, with filters, orders, later pages and cursors
    load        sends requests with wrk, which runs drive.lua
    usage       the CPU time of web workers and PostgreSQL, and the memory of web workers
    pgbouncer   runs PgBouncer in front of PostgreSQL (`--pgbouncer`)
    pgbench     measures PostgreSQL alone, with the SQL of measured requests
    jobs        measures emails, webhooks and overdue bookings
    report      the results, as a table and as JSON
    growth      measures how costs grow with the database (`--growth`)
    storage     the sizes of the database's tables
    churn       simulates a year of bookings, and measures the space that is left empty

`overrides` belongs to another command, `manage.py measure_overrides`.
"""
