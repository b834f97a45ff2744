"""Metrics in Prometheus' text format: what the web processes count, and what PostgreSQL knows.

Each web process counts its own requests (`process`), in a file that all processes of the server
share (`directory`). The numbers of jobs and bookings come from PostgreSQL (`jobs`, and what other
apps add to `extensions.COLLECTORS`), so they are right wherever workers run. A metric never mixes
both sources, because only the counters of processes begin at zero after a restart.
"""
