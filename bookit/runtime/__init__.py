"""Start-up, settings from the environment, logs, backups, embedded PostgreSQL and the web server.

`servers` runs web servers for tests and measurements. The web server itself consists of these
modules:

worker     gunicorn's worker with threads, changed so that waiting clients occupy no thread
arrivals   collects the bytes of a connection until they form a whole request
outgoing   sends responses, and keeps what a slow client has not read yet
spread     balances the connections between the workers
costly     limits how many costly requests a worker handles at a time
floods     recognises sign-ins that are certain to be refused
listeners  stops listening without losing a connection
gunicorn   gunicorn's settings, with the worker above
"""
