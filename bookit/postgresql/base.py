"""The backend's `DatabaseWrapper`, where Django looks for it."""

import select
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.db.backends.postgresql import base
from psycopg.adapt import AdaptersMap
from psycopg.types.datetime import TimestamptzLoader


def server_has_gone(connection: Any) -> bool:
    """Return whether the server closed `connection`, by a look at its socket.

    Between queries the server has nothing to say, so an idle socket that can be read holds the end
    of the stream (the server stopped or was restarted). Django asks with a
    query instead, a round trip for each request.
    """
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


class UTCLoader(TimestamptzLoader):
    """Reads instants in UTC, the zone of every connection, with Python's parser, which is in C."""

    timezone = UTC  # What Django compares with its own, to register a slower one where it differs.

    def load(self, data: Any) -> datetime:
        """Return the instant."""
        try:
            return datetime.fromisoformat(str(data, "ascii"))
        except ValueError:
            return super().load(data)  # Says what is wrong with an infinite one, or one BC.


@cache
def _with_utc_loader(template: AdaptersMap) -> AdaptersMap:
    adapted = AdaptersMap(template)
    adapted.register_loader("timestamptz", UTCLoader)
    return adapted


class DatabaseWrapper(base.DatabaseWrapper):
    """Uses connections whose server is still there, and reads instants quickly."""

    def get_connection_params(self) -> dict[str, Any]:
        """Return what a connection is made with."""
        params = super().get_connection_params()
        return {**params, "context": _with_utc_loader(params["context"])}

    def fetch(self, text: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        """Run one statement and return its rows, as a cursor does, but without the cursor's layers.

        Each of them is little; hot paths go through them for every statement.
        """
        if self.force_debug_cursor or self.execute_wrappers:
            with self.cursor() as cursor:
                cursor.execute(text, parameters)
                return list(cursor.fetchall())
        self.validate_no_broken_transaction()
        self.close_if_health_check_failed()
        self.ensure_connection()
        with self.wrap_database_errors:
            return list(self.connection.execute(text, parameters).fetchall())

    def is_usable(self) -> bool:
        """Return whether the connection that is kept can be used for another request."""
        return not (self.connection.closed or server_has_gone(self.connection))

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a living connection; lost ones of a pool are closed, and it replaces them."""
        connection = super().get_new_connection(conn_params)
        while self.pool and server_has_gone(connection):
            connection.close()
            self.pool.putconn(connection)
            connection = super().get_new_connection(conn_params)
        return connection
