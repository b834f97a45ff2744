"""The categories of services, found without reading all services."""

from psycopg.rows import scalar_row

from bookit.database.rows import fetch

# A filter and an input of the admin site offer at most this many categories. A longer list would
# be hard to choose from.
MAX_CATEGORIES = 100

# Returns the first categories in alphabetical order. PostgreSQL looks up the next category in the
# index for each category that it has found (a loose index scan), so it does not read all services.
#
# Parameters: most int.
# Columns: category text.
CATEGORIES = """
WITH RECURSIVE found AS (
    (SELECT category FROM catalog_service ORDER BY category LIMIT 1)
    UNION ALL
    SELECT (
        SELECT service.category FROM catalog_service AS service
        WHERE service.category > found.category ORDER BY service.category LIMIT 1
    )
    FROM found WHERE found.category IS NOT NULL
)
SELECT category FROM found WHERE category IS NOT NULL LIMIT %(most)s
"""


def categories() -> list[str]:
    """Return the first `MAX_CATEGORIES` categories that services have, in alphabetical order.

    An empty text comes first if there are services without a category. Categories that only
    inactive services have are included; the table of `Category` need not contain them.
    """
    return fetch(CATEGORIES, {"most": MAX_CATEGORIES}, scalar_row)
