"""The categories of services, found without reading all services."""

from psycopg.rows import scalar_row

from bookit.database.rows import fetch

# More categories than this would not help anybody to choose.
MOST_CATEGORIES = 100

# Returns the first categories in alphabetical order; the index jumps from each one to the next.
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
    """Return the first `MOST_CATEGORIES` categories that services have, in alphabetical order."""
    return fetch(CATEGORIES, {"most": MOST_CATEGORIES}, scalar_row)
