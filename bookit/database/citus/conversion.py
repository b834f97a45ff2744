"""Distributes the database, for `manage.py distribute` and after migrations.

The first run does everything in one transaction, except for the last step, which lets the triggers
of each shard run the functions of that shard. Later runs fill the tables of `FILLED_FROM_CALENDARS`
in a second transaction. All steps can run again: after a migration, they distribute the new tables
and functions.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from json import dumps
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from psycopg import sql
from psycopg.rows import dict_row

from bookit.database.citus.extensions import CALENDAR_FUNCTIONS, FILLED_FROM_CALENDARS
from bookit.database.citus.layout import Layout, models_with
from bookit.database.citus.nodes import SETTING, is_distributed
from bookit.database.rows import fetch
from bookit.deadlines import no_time_limit
from bookit.errors.pending import pending_migrations

# Lists the requirements that the database does not meet, one in each row.
#
# Parameters: none. The statement needs Citus.
# Columns: problem text.
_PROBLEMS = """
SELECT 'There are no workers. Add them: SELECT citus_add_node(''host'', 5432).' AS problem
WHERE NOT EXISTS (SELECT FROM pg_dist_node WHERE groupid <> 0 AND noderole = 'primary')
UNION ALL
SELECT 'The coordinator is not a node of its cluster. Add it:'
    ' SELECT citus_set_coordinator_host(''host'', 5432).'
WHERE NOT EXISTS (SELECT FROM pg_dist_node WHERE groupid = 0)
UNION ALL
SELECT 'This server is a worker. DATABASE_URL must lead to the coordinator.'
WHERE (SELECT groupid FROM pg_dist_local_group) <> 0
UNION ALL
SELECT format('%%s:%%s cannot be reached.', nodename, nodeport)
FROM run_command_on_workers('SELECT 1') WHERE NOT success
UNION ALL
SELECT 'max_prepared_transactions is 0. Set it to twice max_connections on every server.'
WHERE current_setting('max_prepared_transactions') = '0'
"""

# Lists the primary keys, unique constraints, exclusion constraints and unique indexes of tables. A
# key, constraint or index is left out if its definition contains `calendar_id`.
#
# Parameters: tables text[].
# Columns: table text, name text, kind text (pg_constraint.contype, or `i` for an index), definition
#   text.
_KEYS = """
SELECT conrelid::regclass::text AS table, conname AS name, contype AS kind,
    pg_get_constraintdef(oid) AS definition
FROM pg_constraint
WHERE conrelid = ANY (%(tables)s::text[]::regclass[]) AND contype IN ('p', 'u', 'x')
    AND pg_get_constraintdef(oid) !~ '\\mcalendar_id\\M'
UNION ALL
SELECT indrelid::regclass::text, relname, 'i', pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = ANY (%(tables)s::text[]::regclass[]) AND indisunique
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
    AND pg_get_indexdef(indexrelid) !~ '\\mcalendar_id\\M'
ORDER BY 1, 2
"""

# Lists the unique constraints of tables on (calendar_id, id).
#
# Parameters: tables text[].
# Columns: table text, name text.
_CALENDAR_KEYS = """
SELECT conrelid::regclass::text AS table, conname AS name FROM pg_constraint
WHERE conrelid = ANY (%(tables)s::text[]::regclass[]) AND contype = 'u'
    AND pg_get_constraintdef(oid) = 'UNIQUE (calendar_id, id)'
"""

# Lists the foreign keys from or to tables.
#
# Parameters: tables text[].
# Columns: table text, name text, target text, definition text.
_FOREIGN_KEYS = """
SELECT conrelid::regclass::text AS table, conname AS name, confrelid::regclass::text AS target,
    pg_get_constraintdef(oid) AS definition
FROM pg_constraint
WHERE contype = 'f' AND (
    conrelid = ANY (%(tables)s::text[]::regclass[])
    OR confrelid = ANY (%(tables)s::text[]::regclass[])
)
ORDER BY conrelid::regclass::text, conname
"""

# Lists the triggers of tables.
#
# Parameters: tables text[].
# Columns: table text, name text, function text, definition text.
_TRIGGERS = """
SELECT tgrelid::regclass::text AS table, tgname AS name, tgfoid::regproc::text AS function,
    pg_get_triggerdef(oid) AS definition
FROM pg_trigger
WHERE tgrelid = ANY (%(tables)s::text[]::regclass[]) AND NOT tgisinternal
ORDER BY 1, 2
"""

# Lists the tables that are distributed already: by calendar (`h`), or to every server (`n`, `t`).
#
# Parameters: none. The statement needs Citus.
# Columns: table text.
_DISTRIBUTED = """
SELECT logicalrelid::text AS table FROM pg_dist_partition
WHERE partmethod = 'h' OR partmethod = 'n' AND repmodel = 't'
"""

# Lists the functions of the triggers of tables.
#
# Parameters: tables text[].
# Columns: name text, definition text, is_before boolean (whether the trigger runs BEFORE a change).
_TRIGGER_FUNCTIONS = """
SELECT DISTINCT proname AS name, pg_get_functiondef(pg_proc.oid) AS definition,
    tgtype & 2 <> 0 AS is_before
FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE tgrelid = ANY (%(tables)s::text[]::regclass[]) AND NOT tgisinternal
ORDER BY proname
"""

# Lists our own functions that workers do not have yet. Functions in SQL that use tables are left
# out, because workers do not need them and could not create them. So are the functions of
# procrastinate and those that use it, because jobs are on the coordinator.
#
# Parameters: none. The statement needs Citus.
# Columns: signature text.
_FUNCTIONS = """
SELECT oid::regprocedure::text AS signature FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
    AND prosrc !~ 'procrastinate' AND proname !~ 'procrastinate' AND NOT EXISTS (
        SELECT FROM pg_class WHERE relnamespace = pronamespace AND relkind = 'r'
            AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'sql')
            AND strpos(prosrc, relname) > 0
    ) AND NOT EXISTS (
        SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e'
    ) AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_dist_object
        WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid
    )
ORDER BY 1
"""

# Returns the name of the database and its settings.
#
# Parameters: none.
# Columns: name text, settings text[].
_DATABASE = """
SELECT datname AS name, coalesce(setconfig, '{}') AS settings FROM pg_database
LEFT JOIN pg_db_role_setting ON setdatabase = pg_database.oid AND setrole = 0
WHERE datname = current_database()
"""

# If every server has a copy of a table, a change to the table runs its triggers on every server.
# Only the coordinator's triggers may write, because Citus sends their writes to every server. The
# triggers that write run AFTER a change, so PostgreSQL ignores what they return.
_GUARD = """
    IF (SELECT groupid FROM pg_dist_local_group) <> 0 THEN
        RETURN NULL;
    END IF;"""

# Errors of other servers arrive without the name of their constraint, but with their hint. So the
# hint repeats the name.
_CONSTRAINT = re.compile(r"(CONSTRAINT = '(\w+)')(?!, HINT)")
_NAMED = r"""\1, HINT = 'constraint "\2"'"""

# The time of the transaction. Unlike now(), it is the same on every server.
_MOMENT = "coalesce((SELECT transaction_stamp FROM get_current_transaction_id()), now())"

# Sets the references to a deleted row to NULL. Citus does not support ON DELETE SET NULL if the
# foreign key contains the calendar.
_EMPTY_REFERENCE = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {table} SET {column} = NULL
    WHERE calendar_id = OLD.calendar_id AND {column} = OLD.id;
    RETURN OLD;
END
$$
"""
_SET_NULL = re.compile(
    r"FOREIGN KEY \(calendar_id, (\w+)\) REFERENCES \w+\(calendar_id, id\) ON DELETE SET NULL"
)

# Jobs are on the coordinator, and the rows of calendars are on workers. If one transaction wrote
# both, a job could be lost. So the transaction that changes a calendar writes a row to the outbox,
# and a relay turns the row into a job (`bookit.jobs.outbox`).
_ENQUEUE_BESIDE = """
CREATE OR REPLACE FUNCTION enqueue_beside(calendar uuid, queue text, task text, args jsonb)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO bookit_outbox (id, calendar_id, queue, task, args)
    VALUES (uuid7(), calendar, queue, task, args);
END
$$
"""

# Stores in each new row of an append-only table which server wrote the row, and in which of its
# transactions. Without the trigger, the row would have the transaction of the coordinator. The
# trigger does not run if Citus moves a shard to another server.
_POSITION = """
CREATE OR REPLACE FUNCTION position_on_server() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.server := (SELECT groupid FROM pg_dist_local_group);
    NEW.transaction := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END
$$
"""
_POSITION_TRIGGER = """
CREATE OR REPLACE TRIGGER position_on_server BEFORE INSERT ON {table}
FOR EACH ROW EXECUTE FUNCTION position_on_server()
"""

# Lists the tables with the columns `server` and `transaction` that lack the trigger
# `position_on_server`.
#
# Parameters: tables text[].
# Columns: table text.
_WITH_POSITIONS = """
SELECT attrelid::regclass::text AS table FROM pg_attribute
WHERE attrelid = ANY (%(tables)s::text[]::regclass[]) AND attname IN ('server', 'transaction')
    AND NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = attrelid AND tgname = 'position_on_server'
    )
GROUP BY attrelid HAVING count(*) = 2
"""

# Lists the shards of calendars. For each shard, lists the names that tables have on its server. A
# table of which every server has a copy has only one shard, without a minimum.
#
# Parameters: tables text[]. The statement needs Citus.
# Columns: shard bigint (of the bookings), table text, name text.
_SHARDS = """
SELECT booking.shardid AS shard, other.logicalrelid::text AS table,
    shard_name(other.logicalrelid, other.shardid) AS name
FROM pg_dist_shard AS booking JOIN pg_dist_shard AS other
    ON coalesce(other.shardminvalue, booking.shardminvalue) = booking.shardminvalue
WHERE booking.logicalrelid = 'bookings_booking'::regclass
    AND other.logicalrelid = ANY (%(tables)s::text[]::regclass[])
ORDER BY 1
"""

# Lists `enqueue_beside`, and those functions of the tables' triggers that use the tables or
# `enqueue_beside`.
#
# Parameters: tables text[].
# Columns: name text, definition text.
_FUNCTIONS_WITH_TABLES = """
SELECT proname AS name, pg_get_functiondef(oid) AS definition FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND (proname = 'enqueue_beside' OR EXISTS (
    SELECT FROM pg_trigger WHERE tgfoid = pg_proc.oid AND NOT tgisinternal
        AND tgrelid = ANY (%(tables)s::text[]::regclass[])
) AND EXISTS (
    SELECT FROM unnest(%(tables)s::text[] || 'enqueue_beside'::text) AS name
    WHERE prosrc ~ ('\\m(FROM|INTO|UPDATE|JOIN|PERFORM)\\s+' || name || '\\M')
))
ORDER BY 1
"""

# Runs a shard's own function. Citus calls this function on the server of the calendar.
#
# Statements that name a shard do not take the lock with which Citus moves the shard, so this
# function takes it. 5 is a ShareLock. If the shard is not on this server any more, or if it was
# split and has no function of its own yet, the function for all shards runs instead.
_DISPATCH = """
CREATE OR REPLACE FUNCTION {name}(calendar_id uuid, p jsonb)
RETURNS TABLE ({columns}) LANGUAGE plpgsql AS $$
DECLARE
    shard bigint := get_shard_id_for_distribution_column('bookings_booking', $1);
    own text := '{name}_' || shard;
BEGIN
    PERFORM lock_shard_metadata(5, ARRAY[shard]);
    PERFORM FROM pg_dist_placement JOIN pg_dist_local_group USING (groupid)
    WHERE shardid = shard AND to_regproc(own) IS NOT NULL;
    IF NOT FOUND THEN
        own := '{name}_on_all';
    END IF;
    RETURN QUERY EXECUTE format('SELECT * FROM %I($1, $2)', own) USING $1, $2;
END
$$
"""
_FUNCTION = """
CREATE OR REPLACE FUNCTION public.{name}(calendar_id uuid, p jsonb)
RETURNS TABLE ({columns}) LANGUAGE plpgsql AS $$
{body}
$$
"""

# Finds the calendar of a row among the shards of this server; see `bookit.database.citus.lookups`.
_CALENDAR_ON_SERVER = """
CREATE OR REPLACE FUNCTION calendar_on_server(name regclass, pk uuid)
RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    shard text;
    found uuid;
BEGIN
    FOR shard IN
        SELECT shard_name(logicalrelid, shardid)
        FROM pg_dist_shard JOIN pg_dist_placement USING (shardid)
        JOIN pg_dist_local_group USING (groupid)
        WHERE logicalrelid = name
    LOOP
        EXECUTE format('SELECT calendar_id FROM %s WHERE id = $1', shard) INTO found USING pk;
        IF found IS NOT NULL THEN
            RETURN found;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$
"""

# Lets the triggers of shards on this server run the functions of their shards.
_USE_OWN_FUNCTIONS = """
DO $do$
DECLARE
    wanted record;
BEGIN
    SET LOCAL citus.enable_ddl_propagation = off;
    FOR wanted IN SELECT * FROM json_to_recordset({triggers}) AS trigger
        ("table" text, name text, function text, definition text)
    LOOP
        IF to_regclass(wanted.table) IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = to_regclass(wanted.table)
                AND tgname = wanted.name AND tgfoid = to_regproc(wanted.function)
        ) THEN
            EXECUTE wanted.definition;
        END IF;
    END LOOP;
END
$do$
"""

# Runs a command on every worker.
#
# Parameters: command text. The statement needs Citus.
# Columns: server text, problem text; one row for each worker that could not run the command.
_FAILED_ON_WORKERS = """
SELECT nodename || ':' || nodeport AS server, result AS problem
FROM run_command_on_workers(%(command)s) WHERE NOT success
"""

# The number of bytes to which PostgreSQL shortens longer names.
MAX_NAME = 63

# Settings of every session. With "sequential", Citus uses only one connection to each server. After
# using several connections, a transaction cannot change a table of which every server has a copy.
# "Unsafe" triggers are allowed, because the triggers of a calendar's rows write only rows of the
# same calendar. With "local", SET LOCAL also reaches the workers. An attempt to connect to another
# server ends after a second. By default, Citus waits for 30 seconds, which is longer than a
# statement may take, so that nothing could be read from the servers that do answer.
_SETTINGS = {
    "citus.multi_shard_modify_mode": "sequential",
    "citus.node_connection_timeout": "1s",
    "citus.enable_unsafe_triggers": "on",
    "citus.propagate_set_commands": "local",
    SETTING: "on",
}


class CannotDistribute(Exception):
    """The database cannot be distributed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Step:
    """A step of the conversion: a description in words, and the statements."""

    words: str
    statements: tuple[Any, ...]


def problems() -> list[str]:
    """Return what must be done before the database can be distributed."""
    if not fetch("SELECT FROM pg_extension WHERE extname = 'citus'", {}):
        return ["The database has no extension citus. Install it: CREATE EXTENSION citus."]
    found = cluster_problems()
    if pending_migrations():
        found.append("Migrations are pending. Run manage.py migrate first.")
    return found


def cluster_problems() -> list[str]:
    """Return what is wrong with the servers of the cluster. The database needs the extension."""
    return [row["problem"] for row in fetch(_PROBLEMS, {}, dict_row)]


def steps() -> list[Step]:
    """Return the steps left to do, except the steps that every run repeats (see `distribute`)."""
    placed = {row["table"] for row in fetch(_DISTRIBUTED, {}, dict_row)}
    shared = [model._meta.db_table for model in models_with(Layout.EVERYWHERE)]
    spread = [model._meta.db_table for model in models_with(Layout.BY_CALENDAR)]
    new = [table for table in [*shared, *spread] if table not in placed]
    found = [
        *_keys([table for table in spread if table in new]),
        *(_everywhere(table) for table in shared if table in new),
        *(_by_calendar(table, spread[0]) for table in spread if table in new),
    ]
    if found:
        drop, add = _foreign_keys(new)
        drop_triggers, add_triggers = _triggers(new)
        found = [drop, drop_triggers, *found, add, add_triggers]
    return [*_missing_functions(), *found, *_functions(shared, spread), *_settings()]


def distribute() -> list[Step]:
    """Distribute the database, and return the steps that were done.

    Each run also creates the functions of shards, fills the tables of `FILLED_FROM_CALENDARS`, and
    lets the triggers of shards run their functions. These steps are not returned.

    Raises:
        CannotDistribute: the database is not ready (see `problems`), or a shard cannot have its own
            functions.
    """
    if found := problems():
        raise CannotDistribute(found)
    with no_time_limit():
        done = _distribute()
    is_distributed.cache_clear()  # The next call asks the database again.
    return done


def _distribute() -> list[Step]:
    done = []
    is_first = not fetch(_DISTRIBUTED, {})
    with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        # Foreign keys connect the tables, so Citus must use only one connection to each server.
        cursor.execute("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")
        cursor.execute("SET LOCAL citus.enable_unsafe_triggers = on")
        cursor.execute("SET LOCAL client_min_messages = warning")
        # Behind PgBouncer, `no_time_limit` may have changed another connection to the server.
        cursor.execute("SET LOCAL statement_timeout = 0")
        for step in steps():
            _run(step, cursor)
            done.append(step)
        # The shards exist only now.
        shards = _Shards()
        for step in shards.functions():
            _run(step, cursor)
        if is_first:
            _fill(cursor)
    if not is_first:
        # The site may be in use, so the locks of the steps are released before tables are filled.
        with transaction.atomic(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 0")
            _fill(cursor)
    shards.use_own_functions()
    return done


def _fill(cursor: Any) -> None:
    for statement in FILLED_FROM_CALENDARS.values():
        cursor.execute(statement)


def _run(step: Step, cursor: Any) -> None:
    for statement in step.statements:
        cursor.execute(statement)


def keep_distributed(using: str = DEFAULT_DB_ALIAS, **options: Any) -> None:
    """Distribute what a migration has added to a distributed database."""
    if using == DEFAULT_DB_ALIAS and is_distributed():
        distribute()


def _keys(tables: list[str]) -> Iterator[Step]:
    """Yield the steps that make the keys, constraints and unique indexes begin with the calendar.

    Those that already contain the calendar stay as they are; see `_KEYS`.

    A primary key is dropped instead if its table has a unique constraint on (calendar_id, id).
    """
    named = {"tables": tables}
    own = {row["table"]: row["name"] for row in fetch(_CALENDAR_KEYS, named, dict_row)}
    for row in fetch(_KEYS, named, dict_row):
        table, name = sql.Identifier(row["table"]), sql.Identifier(row["name"])
        wider: Any = sql.SQL(_with_calendar(row["definition"]))
        if row["kind"] == "i":
            drop: Any = sql.SQL("DROP INDEX {}").format(name)
            add: Any = wider
        else:
            drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, name)
            add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(table, name, wider)
        statements: list[Any] = [drop, add]
        words = f"{row['table']}: {row['name']} begins with the calendar"
        if row["kind"] == "p":
            # Rows are also looked up by their ids alone.
            index = sql.Identifier(f"{row['table']}_id")
            statements.append(sql.SQL("CREATE INDEX {} ON {} (id)").format(index, table))
            if key := own.get(row["table"]):
                # The unique constraint on (calendar_id, id) replaces the primary key, because a
                # second index on the same columns would slow down every insert. Citus moves shards
                # by logical replication, which needs a primary key or a replica identity.
                identity = sql.SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}")
                statements[1] = identity.format(table, sql.Identifier(key))
                words = f"{row['table']}: {key} replaces {row['name']}"
        yield Step(words, tuple(statements))


def _with_calendar(definition: str) -> str:
    """Return the definition of a constraint or an index with the calendar as its first column."""
    first = "(calendar_id WITH =, " if definition.startswith("EXCLUDE") else "(calendar_id, "
    return definition.replace("(", first, 1)


def _everywhere(table: str) -> Step:
    statement = sql.SQL("SELECT create_reference_table({})").format(table)
    return Step(f"{table}: on every server", (statement,))


def _by_calendar(table: str, first: str) -> Step:
    """Return the step that distributes a table. All tables are colocated with the table `first`."""
    beside = "default" if table == first else first
    statement = sql.SQL(
        "SELECT create_distributed_table({}, 'calendar_id', colocate_with := {})"
    ).format(table, beside)
    return Step(f"{table}: distributed by calendar", (statement,))


def _foreign_keys(tables: list[str]) -> tuple[Step, Step]:
    """Return the step that removes foreign keys, and the step that creates them again."""
    drops, adds = [], []
    for row in fetch(_FOREIGN_KEYS, {"tables": tables}, dict_row):
        table, name = sql.Identifier(row["table"]), sql.Identifier(row["name"])
        definition = row["definition"]
        drops.append(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, name))
        if found := _SET_NULL.match(definition):
            definition = definition.partition(" ON DELETE")[0]
            adds += _emptied(row["name"], table, found[1], sql.Identifier(row["target"]))
        adds.append(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(table, name, sql.SQL(definition))
        )
    count = len(drops)
    return Step(f"remove {count} foreign keys", tuple(drops)), Step(
        f"create {count} foreign keys", tuple(adds)
    )


def _triggers(tables: list[str]) -> tuple[Step, Step]:
    """Return the step that removes triggers, and the step that creates them again.

    Citus moves the rows with COPY, so triggers would write everything a second time.
    """
    rows = fetch(_TRIGGERS, {"tables": tables}, dict_row)
    drop = sql.SQL("DROP TRIGGER {} ON {}")
    drops = [drop.format(sql.Identifier(row["name"]), sql.Identifier(row["table"])) for row in rows]
    adds = [sql.SQL(row["definition"]) for row in rows]
    return (
        Step(f"remove {len(rows)} triggers", tuple(drops)),
        Step(f"create {len(rows)} triggers", tuple(adds)),
    )


def _emptied(name: str, table: Any, column: str, target: Any) -> list[Any]:
    """Return the statements that replace ON DELETE SET NULL; see `_EMPTY_REFERENCE`."""
    function = sql.Identifier(f"{name}_ends")
    trigger = (
        "CREATE TRIGGER {function} BEFORE DELETE ON {target}"
        " FOR EACH ROW EXECUTE FUNCTION {function}()"
    )
    return [
        sql.SQL(_EMPTY_REFERENCE).format(
            function=function, table=table, column=sql.Identifier(column)
        ),
        sql.SQL(trigger).format(function=function, target=target),
    ]


def _missing_functions() -> Iterator[Step]:
    """Yield the steps that create on workers the functions that they lack; see `_FUNCTIONS`."""
    statement = sql.SQL("SELECT create_distributed_function({})")
    for row in fetch(_FUNCTIONS, {}, dict_row):
        signature = row["signature"]
        yield Step(f"{signature}: on every server", (statement.format(signature),))


def _functions(shared: list[str], spread: list[str]) -> Iterator[Step]:
    """Yield the steps that adapt functions, and that add the triggers `position_on_server`."""
    for row in fetch(_TRIGGER_FUNCTIONS, {"tables": shared}, dict_row):
        definition = row["definition"]
        if row["is_before"]:
            # The trigger changes the row on every server, and must set the same time everywhere.
            changed = definition.replace("greatest(now(),", f"greatest({_MOMENT},")
        elif _GUARD in definition:
            changed = definition
        else:
            changed = definition.replace("\nBEGIN\n", f"\nBEGIN{_GUARD}\n", 1)
        changed = _CONSTRAINT.sub(_NAMED, changed)
        if changed != definition:
            yield Step(f"{row['name']}(): the same on every server", (sql.SQL(changed),))
    for row in fetch(_TRIGGER_FUNCTIONS, {"tables": spread}, dict_row):
        changed = _CONSTRAINT.sub(_NAMED, row["definition"])
        if changed != row["definition"]:
            yield Step(f"{row['name']}(): errors name the constraint", (sql.SQL(changed),))
    for row in fetch(_WITH_POSITIONS, {"tables": spread}, dict_row):
        trigger = sql.SQL(_POSITION_TRIGGER).format(table=sql.Identifier(row["table"]))
        words = f"{row['table']}: positions on its own server"
        yield Step(words, (sql.SQL(_POSITION), trigger))
    [(current,)] = fetch("SELECT prosrc FROM pg_proc WHERE proname = 'enqueue_beside'", {})
    if "bookit_outbox" not in current:
        yield Step("enqueue_beside(): writes an outbox", (sql.SQL(_ENQUEUE_BESIDE),))


def _of_shard(name: str, shard: int | str) -> str:
    """Return the name of a shard's own function or trigger.

    Raises:
        CannotDistribute: the name is so long that PostgreSQL would shorten it.
    """
    own = f"{name}_{shard}"
    if len(own.encode()) > MAX_NAME:
        raise CannotDistribute([f"The name {own} has more than {MAX_NAME} bytes."])
    return own


class _Shards:
    """Gives each shard of calendars its own functions.

    `CALENDAR_FUNCTIONS`, `enqueue_beside`, and the functions of triggers that use it or tables of
    calendars, exist once for each shard, with the names of the shard's tables. So their statements
    are ordinary statements, which PostgreSQL plans once per session. Citus would plan them at each
    run, which takes three times as long as the booking itself.

    If Citus moves a shard, the triggers of the new copy run the functions that serve all shards.
    These do the same more slowly, until `manage.py distribute` runs again.

    Raises:
        CannotDistribute: the name of a function or a trigger is too long.
    """

    def __init__(self) -> None:
        self.spread = [model._meta.db_table for model in models_with(Layout.BY_CALENDAR)]
        tables = [*self.spread, *(each._meta.db_table for each in models_with(Layout.EVERYWHERE))]
        #: The names of tables on a shard's server, by the shard of bookings and the table.
        self.names: dict[int, dict[str, str]] = {}
        for row in fetch(_SHARDS, {"tables": tables}, dict_row):
            self.names.setdefault(row["shard"], {})[row["table"]] = row["name"]
        rows = fetch(_FUNCTIONS_WITH_TABLES, {"tables": self.spread}, dict_row)
        self.texts = {row["name"]: row["definition"] for row in rows} | {
            name: _FUNCTION.format(name=name, columns=function.columns, body=function.body)
            for name, function in CALENDAR_FUNCTIONS.items()
        }
        named = "|".join([*tables, *self.texts])
        before = r"FUNCTION public\.|(?:FROM|INTO|UPDATE|JOIN|PERFORM)\s+"
        self.named = re.compile(rf"\b({before})({named})\b")
        self.triggers = [
            self._trigger(row, shard)
            for row in fetch(_TRIGGERS, {"tables": self.spread}, dict_row)
            if row["function"] in self.texts
            for shard in self.names
        ]

    def functions(self) -> Iterator[Step]:
        """Yield the steps that create the functions, and `calendar_on_server`."""
        yield Step("calendar_on_server(): finds a row by its id", (sql.SQL(_CALENDAR_ON_SERVER),))
        for name, text in self.texts.items():
            copies = [sql.SQL(self._for_shard(text, shard)) for shard in self.names]
            yield Step(f"{name}(): a copy for each shard", tuple(copies))
        for name, function in CALENDAR_FUNCTIONS.items():
            columns, body = function.columns, function.body
            on_all = _FUNCTION.format(name=f"{name}_on_all", columns=columns, body=body)
            dispatch = _DISPATCH.format(name=name, columns=columns)
            place = sql.SQL(
                "SELECT create_distributed_function({}, 'calendar_id',"
                " colocate_with := 'bookings_booking', force_delegation := true)"
            ).format(f"{name}(uuid, jsonb)")
            yield Step(
                f"{name}(): runs on the calendar's server",
                (sql.SQL(on_all), sql.SQL(dispatch), place),
            )

    def _for_shard(self, text: str, shard: int) -> str:
        """Return a function's definition, with the names of a shard's tables and functions."""
        own = self.names[shard]

        def renamed(found: re.Match[str]) -> str:
            return found[1] + (own.get(found[2]) or _of_shard(found[2], shard))

        return self.named.sub(renamed, text)

    def use_own_functions(self) -> None:
        """Let the triggers of the shards run the functions of their shards.

        Each worker does this in a transaction of its own. Therefore, the transaction that creates
        the functions must have ended.

        Raises:
            CannotDistribute: a worker cannot do this.
        """
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            text = sql.SQL(_USE_OWN_FUNCTIONS).format(triggers=dumps(self.triggers))
            command = text.as_string(cursor.connection)
        failed = fetch(_FAILED_ON_WORKERS, {"command": command}, dict_row)
        if failed:
            raise CannotDistribute([f"{row['server']}: {row['problem']}" for row in failed])

    def _trigger(self, row: dict[str, Any], shard: int) -> dict[str, str]:
        table = self.names[shard][row["table"]]
        # Citus has created the trigger with the number of the shard of its own table. The functions
        # have the number of the shard of bookings.
        name = _of_shard(row["name"], table.rpartition("_")[2])
        function = _of_shard(row["function"], shard)
        definition = (
            row["definition"]
            .replace(f"CREATE TRIGGER {row['name']} ", f"CREATE OR REPLACE TRIGGER {name} ", 1)
            .replace(f" ON public.{row['table']} ", f" ON {table} ", 1)
            .replace(f" EXECUTE FUNCTION {row['function']}()", f" EXECUTE FUNCTION {function}()")
        )
        return {"table": table, "name": name, "function": function, "definition": definition}


def _settings() -> Iterator[Step]:
    [(database, usual)] = fetch(_DATABASE, {})
    for name, value in _SETTINGS.items():
        if f"{name}={value}" in usual:
            continue
        yield Step(
            f"{name} = {value}",
            (
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(database),
                    sql.SQL(name),
                    value,
                ),
            ),
        )
