"""Metrics in Prometheus' text format, which come from the web processes and from PostgreSQL.

Each web process counts its own requests (`process`), in files in a folder that all processes of the
server share (`directory`). The numbers of jobs and bookings come from PostgreSQL (`jobs`, and the
functions that other apps add to `extensions.COLLECTORS`), so they cover the workers on all hosts.
A metric never mixes both sources, because only the counters of processes begin at zero after a
restart.
"""
