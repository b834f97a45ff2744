"""Jobs: how workers reach the queue, whose tables are in the same PostgreSQL."""

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from procrastinate import App
from procrastinate.connector import BaseAsyncConnector
from procrastinate.contrib.django.django_connector import DjangoConnector
from procrastinate.psycopg_connector import PsycopgConnector
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict


class Connector(DjangoConnector):
    """Enqueues on Django's connection, in its transaction; a worker has an address of its own."""

    def get_worker_connector(self) -> BaseAsyncConnector:
        """Return the connections of a worker: direct ones, where there is a pooler in between."""
        if not settings.DATABASE_DIRECT_URL:
            return super().get_worker_connector()
        try:
            parameters = conninfo_to_dict(settings.DATABASE_DIRECT_URL)
        except ProgrammingError:
            raise ImproperlyConfigured(
                "DATABASE_DIRECT_URL must look like postgresql://user:password@host:5432/database."
            ) from None
        return PsycopgConnector(kwargs={"connect_timeout": 2, **parameters})


def prepare(app: App) -> None:
    """Give the app its connector; procrastinate calls this once it is ready."""
    app.connector = Connector(alias=app.connector.alias)  # type: ignore[attr-defined]
