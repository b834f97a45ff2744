"""The PostgreSQL servers that have held the database."""

from django.db import models
from django.db.models.functions import Now


class Server(models.Model):
    """A PostgreSQL server that holds the database, or that held it before a restore."""

    id = models.BigAutoField(primary_key=True)
    # PostgreSQL's system identifier, which `initdb` creates.
    identifier = models.BigIntegerField()
    # When the database came to this server, the positions of all rows were below `boundary`, and
    # `shift` was subtracted from each position. The first server has no boundary, because no
    # position was moved.
    boundary = models.BigIntegerField(null=True)
    shift = models.BigIntegerField(default=0)
    since = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "bookit_server"

    def __str__(self) -> str:
        return f"{self.identifier} since {self.since:%Y-%m-%d %H:%M}"
