"""Keeps positions in append-only tables valid when the database moves to another server.

A position is the id of the transaction that wrote a row. Every server counts its own transactions,
so a database that is restored into another server has positions that the new server has not reached
yet. After each `migrate`, BookIt compares the server with the one that it used before. If it is
another server, BookIt moves all positions below the next transaction id.
"""
