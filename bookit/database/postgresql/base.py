"""The backend's `DatabaseWrapper`, in the module where Django looks for it."""

import select
from functools import cache
from time import monotonic
from types import SimpleNamespace
from typing import Any

import psycopg
from django.db.backends.postgresql import base, features, schema
from psycopg.adapt import AdaptersMap
from psycopg.errors import ConnectionTimeout, FeatureNotSupported
from psycopg.pq import Format, TransactionStatus

from bookit.database.postgresql.connections import Connection

# After an attempt to connect to a server timed out, no thread of this process tries again for this
# many seconds. Each attempt takes `connect_timeout`. Without the pause, a request that waits for a
# free thread would wait for all earlier attempts. (The threads of a pool connect without a pause.)
PAUSE = 1.0

# How long an atomic migration waits for a lock. While it waits for the lock of a table, usually
# all later statements on this table wait behind it.
LOCK_TIMEOUT = "2s"


def server_has_gone(connection: Any) -> bool:
    """Return whether the server has closed `connection`, without sending a query.

    Between queries, the server sends nothing. If an idle socket is readable, the server has closed
    the connection, for example because it was restarted. Django sends a query instead, which costs
    each request a round trip.
    """
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


@cache
def _with_own_loader(template: AdaptersMap) -> AdaptersMap:
    """Return adapters that read `timestamptz` with psycopg's loader in C, not with Django's.

    Both loaders return values in the connection's time zone, which is UTC. Django's loader sets the
    time zone once more.
    """
    adapted = AdaptersMap(template)
    instants = psycopg.adapters.types["timestamptz"].oid
    loader: Any = psycopg.adapters.get_loader(instants, Format.TEXT)
    adapted.register_loader(instants, loader)
    return adapted


class Cursor(base.ServerBindingCursor):
    """Prepares its statements again if a migration has changed the type of a column."""

    connection: Any

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Execute a statement. If its prepared form is outdated, prepare it again.

        PostgreSQL refuses to run a prepared statement whose result has another type than before.
        Without this method, such a statement would fail in every process that started before the
        migration. Within a transaction, the statement cannot be repeated before the rollback; see
        `bookit.database.retries`.
        """
        try:
            return super().execute(query, params, **options)  # type: ignore[misc]
        except FeatureNotSupported:
            if self.connection.info.transaction_status != TransactionStatus.IDLE:
                self.connection.has_outdated_statements = True
                raise
        self.connection.execute("DEALLOCATE ALL", prepare=False)
        return super().execute(query, params, **options)  # type: ignore[misc]


class DatabaseFeatures(features.DatabaseFeatures):
    """Lets system checks run without a connection."""

    # From Django 6.1 on, the system checks of generated columns read this attribute. Django would
    # query the database for its value, so no command that runs the checks could run without a
    # database. BookIt has no virtual columns.
    supports_virtual_generated_columns = False


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """Limits how long a migration waits for a lock. After that, `manage.py migrate` tries again.

    A migration that is not one transaction has no limit, because it could not be tried again.
    """

    def __enter__(self) -> "DatabaseSchemaEditor":
        super().__enter__()
        if self.atomic_migration and not self.collect_sql:
            self.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        return self


class DatabaseWrapper(base.DatabaseWrapper):
    """Replaces lost connections, limits attempts to connect, and reads `timestamptz` quickly."""

    features_class = DatabaseFeatures
    SchemaEditorClass = DatabaseSchemaEditor

    #: The module psycopg, except that `connect` returns connections of our own class. The lambda
    #: looks up `Connection.connect` at each call, because tracing replaces that method.
    Database = SimpleNamespace(  # type: ignore[assignment]
        **{**vars(psycopg), "connect": lambda *args, **params: Connection.connect(*args, **params)}
    )

    # The time until which no thread tries to connect, by host, port and database; shared by all
    # wrappers. A pooler can lead to several servers, one for each database.
    _silent_until: dict[Any, float] = {}

    def __init__(self, settings_dict: dict[str, Any], alias: str = "default") -> None:
        super().__init__(settings_dict, alias)
        options = settings_dict["OPTIONS"]
        if options.get("pool"):
            pool = {"connection_class": Connection, **options["pool"]}
            settings_dict["OPTIONS"] = {**options, "pool": pool}

    def get_connection_params(self) -> dict[str, Any]:
        """Return the parameters of new connections."""
        params = super().get_connection_params()
        if params["prepare_threshold"] is not None:
            params["cursor_factory"] = Cursor
        return {**params, "context": _with_own_loader(params["context"])}

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor as Django does, but without Django's loader for `timestamptz`."""
        if name:
            held = self.connection.autocommit
            return self.connection.cursor(name, scrollable=False, withhold=held)
        return self.connection.cursor()

    def is_usable(self) -> bool:
        """Return whether the kept connection can be used for another request."""
        return not (self.connection.closed or server_has_gone(self.connection))

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a live connection. If a pool returns a lost connection, close and replace it."""
        connection = self._connect(conn_params)
        while self.pool and server_has_gone(connection):
            connection.close()
            self.pool.putconn(connection)
            connection = self._connect(conn_params)
        return connection

    def _connect(self, conn_params: dict[str, Any]) -> Any:
        # Read the host from the parameters: HOST is empty if the URL names the host after its `?`.
        server = tuple(conn_params.get(name) for name in ("host", "port", "dbname"))
        if monotonic() < self._silent_until.get(server, 0.0):
            raise ConnectionTimeout("PostgreSQL did not answer a moment ago.")
        try:
            return super().get_new_connection(conn_params)
        except ConnectionTimeout:
            self._silent_until[server] = monotonic() + PAUSE
            raise
