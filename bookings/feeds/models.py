"""Secret addresses of calendar feeds."""

from django.db import models


class Feed(models.Model):
    """How often the address of a feed was renewed. Earlier addresses are no longer valid."""

    id = models.UUIDField(primary_key=True, help_text="The id of the user or the calendar.")
    version = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.id}, version {self.version}"
