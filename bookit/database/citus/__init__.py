"""Spreads the database over several servers with the extension Citus, by calendar.

Applications connect to one server, the coordinator. The rows of a calendar are in one shard, and
each shard is on one of the other servers, the workers. `docs/scaling.md` says when this is worth
its price.
"""
