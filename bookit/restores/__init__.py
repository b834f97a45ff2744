"""Keeps positions in append-only tables valid when the database moves to another server.

A position is the id of the transaction that wrote a row. Every server counts its own transactions,
so a database that is restored into another server can have positions that the new server has not
reached yet. After each `migrate` and `restore`, BookIt checks whether the database is still on the
same server. If the database has moved, BookIt subtracts the same number from all positions, so that
they are below the next transaction id.
"""
