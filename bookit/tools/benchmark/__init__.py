"""`manage.py benchmark`: BookIt under load, next to a bare WSGI function and PostgreSQL alone.

It is run by hand. The modules, in the order in which they are used:

    measure     the whole benchmark, one step after the other
    fill        a database with services, users and bookings
    statements  the SQL of the measured requests, taken from the apps
    reference   the WSGI function that BookIt is compared with
    cases       the requests that are measured
    load        sends requests with wrk, as drive.lua tells it
    usage       what the web workers use
    pgbench     PostgreSQL alone, with the same SQL
    jobs        mails, webhooks and overdue bookings, done by a worker
    report      the table and the JSON file
"""
