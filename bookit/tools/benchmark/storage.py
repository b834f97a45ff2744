"""The sizes of the tables of a filled database."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg.rows import namedtuple_row

from bookit.database.rows import fetch

# Finds the largest tables. The size of a table includes its TOAST table (long values), its map of
# free space and its visibility map.
#
# Parameters: least bigint (smaller tables are left out).
# Columns: name text, rows bigint (estimated), table_bytes bigint, index_bytes bigint,
#     indexes bigint.
TABLES = """
SELECT relname AS name, reltuples::bigint AS rows, pg_table_size(oid) AS table_bytes,
    pg_indexes_size(oid) AS index_bytes,
    (SELECT count(*) FROM pg_index WHERE indrelid = pg_class.oid) AS indexes
FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
  AND pg_total_relation_size(oid) >= %(least)s::bigint
ORDER BY pg_total_relation_size(oid) DESC, relname
"""


@dataclass(frozen=True)
class Table:
    """A table: its estimated number of rows, its size, and the size and number of its indexes."""

    name: str
    rows: int
    table_bytes: int
    index_bytes: int
    indexes: int

    @staticmethod
    def markdown(tables: "Sequence[Table]", bookings: int) -> Iterator[str]:
        """Yield the lines of a Markdown table: a row for each of `tables`, and one for all of them.

        Args:
            bookings: the number of bookings in the database, for the bytes per booking.
        """
        yield "| Table | Rows | Table MB | Indexes MB | Indexes | Bytes per booking |"
        yield "|---|---|---|---|---|---|"
        for each in tables:
            size = each.table_bytes + each.index_bytes
            yield (
                f"| `{each.name}` | {each.rows:,} | {each.table_bytes / 1e6:,.0f} |"
                f" {each.index_bytes / 1e6:,.0f} | {each.indexes} | {size / bookings:,.0f} |"
            )
        total = sum(each.table_bytes + each.index_bytes for each in tables)
        yield f"| all | | | | | {total / bookings:,.0f} |"


def tables(least: int = 2**20) -> list[Table]:
    """Return the tables that have at least `least` bytes with their indexes, the largest first."""
    rows = fetch(TABLES, {"least": least}, namedtuple_row)
    return [Table(**row._asdict()) for row in rows]
