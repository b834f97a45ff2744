"""Metrics in Prometheus' text format, which come from the web processes and from PostgreSQL.

Each web process counts its own requests (`process`). Under gunicorn, the counters are in files in
a folder that all processes of gunicorn share (`directory`). The numbers of jobs and bookings come
from PostgreSQL (`jobs`, and the functions that other apps add to `extensions.COLLECTORS`), so they
cover all hosts. A metric never mixes both sources, because only the counters of processes begin at
zero when the web server restarts.
"""
