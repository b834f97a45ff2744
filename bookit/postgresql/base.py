"""The backend's `DatabaseWrapper`, where Django looks for it."""

import select
from typing import Any

from django.db.backends.postgresql import base


def server_has_gone(connection: Any) -> bool:
    """Return whether the server closed `connection`, by a look at its socket.

    Between queries the server has nothing to say, so an idle socket that can be read holds the end
    of the stream (the server stopped or was restarted). Django's own CONN_HEALTH_CHECKS asks with
    a query instead, a round trip for each request.
    """
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


class DatabaseWrapper(base.DatabaseWrapper):
    """Hands out pooled connections whose server is still there."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a living connection; lost ones are closed, and the pool replaces them."""
        connection = super().get_new_connection(conn_params)
        while self.pool and server_has_gone(connection):
            connection.close()
            self.pool.putconn(connection)
            connection = super().get_new_connection(conn_params)
        return connection
