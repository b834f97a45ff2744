"""The categories of services."""

from django.db import models
from django.db.models import Exists, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Upper


class CategoryQuerySet(models.QuerySet["Category"]):
    """Queries for categories."""

    def in_use(self) -> "CategoryQuerySet":
        """Return the categories with active services; `total` is the number of these services.

        Names that differ only in case are one category, which has the most frequent of these names.
        """
        alike = Category.objects.filter(key=OuterRef("key"), active_services__gt=0).order_by()
        more_frequent = alike.filter(
            Q(active_services__gt=OuterRef("active_services"))
            | Q(active_services=OuterRef("active_services"), name__lt=OuterRef("name"))
        )
        total = alike.values("key").annotate(total=Sum("active_services")).values("total")
        return self.filter(~Exists(more_frequent), active_services__gt=0).annotate(
            total=Subquery(total)
        )


class Category(models.Model):
    """A name that services have as their category, and the number of active services with it.

    A trigger (`catalog.triggers.CATEGORIES_ARE_COUNTED`) maintains the rows, so the numbers can be
    listed without reading the services.
    """

    name = models.CharField(max_length=100, unique=True)
    key = models.GeneratedField(
        expression=Upper("name"), output_field=models.TextField(), db_persist=True
    )
    # The column must accept negative numbers. To lower a number, the trigger tries to insert a row
    # with a negative number. PostgreSQL checks that row before it updates the existing row instead.
    active_services = models.IntegerField()

    objects = CategoryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "categories"
        indexes = [models.Index(fields=["key", "id"], name="category_by_key")]

    def __str__(self) -> str:
        return self.name
