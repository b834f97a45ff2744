"""The versions of the URLs of calendar feeds."""

from django.db import models


class Feed(models.Model):
    """How many times the URLs of a feed were renewed. Earlier URLs are no longer valid."""

    id = models.UUIDField(primary_key=True, help_text="The id of the user or the calendar.")
    version = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.id}, version {self.version}"
