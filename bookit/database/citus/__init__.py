"""Spreads the database over several servers with the extension Citus, by calendar.

Applications connect to one server, the coordinator. The other servers are the workers. In each
table that is spread this way, the rows of a calendar are in one shard, and all shards with rows of
this calendar are on one worker. `docs/scaling.md` says when this is worth its price.
"""
