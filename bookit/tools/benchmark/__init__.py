"""`manage.py benchmark`: BookIt under load, beside a bare WSGI function and PostgreSQL alone.

Run by hand, never by a server. The modules, in the order in which they come into play:

    servers    the processes: gunicorn with BookIt, and the same gunicorn with the reference
    fill       a database with services, users and bookings, made by SQL
    cases      the requests that are measured, and what is expected of them
    queries    the SQL of the cases, for those who do without BookIt
    reference  the WSGI function that BookIt is compared with
    load       sends requests and measures; drive.lua and client.py are its two generators
    pgbench    PostgreSQL alone, with the same SQL
    report     the table and the JSON file
    measure    all of it, one after the other
"""
