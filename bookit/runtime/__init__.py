"""The web server: how connections become requests, and how workers share them.

worker     gunicorn's worker with threads, in which clients wait without a thread
arrivals   the bytes of a connection, until they are a whole request
outgoing   the answer, which never waits for a client that does not read
spread     how many connections each worker has
"""
