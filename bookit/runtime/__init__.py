"""Start-up, settings from the environment, logs, the embedded PostgreSQL and the web server.

The web server consists of these modules:

worker     gunicorn's worker with threads, in which waiting clients occupy no thread
arrivals   collects the bytes of a connection until they form a whole request
outgoing   sends the response without waiting for a client that does not read
spread     balances the connections between the workers
costly     limits how many costly requests a worker answers at a time
"""
