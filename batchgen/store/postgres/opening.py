"""How a connection is made and made ready: its settings, what the server is, and the schema."""

import logging
import os
import threading
import time
from typing import Any, NamedTuple

import psycopg
from psycopg import conninfo

from batchgen import clock
from batchgen.database_address import PostgresAddress
from batchgen.errors import Remedy, StoreError, UsageError
from batchgen.store.postgres.adapting import adapt
from batchgen.store.postgres.migrate import migrate, migrations, schema_version
from batchgen.store.postgres.problems import PassingError, connect_error, store_errors

MINIMUM_SERVER = 14

_OPENING_S = 30.0  # for a server that starts, or recovers from a crash
_OPEN_AGAIN_S = 0.2

# It warns of statements that were not run, as another one before them failed; that one is told.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# What a connection needs to see that the network, or the machine at its other end, is gone. Those
# of the address are stronger.
_DEFAULTS = {
    "connect_timeout": 10, "keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5,
    "keepalives_count": 3, "tcp_user_timeout": 25_000,
}  # fmt: skip

# So long a client may be silent in the middle of a transaction, and whoever waits for it waits at a
# time.
STOPPED = "15s"

# A statement is planned once, for any values, and by the indexes: what the planner guesses of a
# table that was empty a moment ago, or of a list that it cannot see, made a statement of a hundred
# rows read millions. Of a page (`limit $1`) it thinks that it is a tenth of the table, and would
# merge two whole tables for each, in several processes.
SETTINGS = {
    "enable_seqscan": "off",
    "enable_mergejoin": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    # Who stops in the middle of a transaction keeps the others no longer; holders.py has the rest.
    "idle_in_transaction_session_timeout": STOPPED,
    "lock_timeout": STOPPED,
    # By the server's own, a machine that lost its power keeps a session, and its locks, for hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "statement_timeout": "0",  # a proof of ten million rows takes minutes
    "standard_conforming_strings": "on",
    "client_min_messages": "warning",
}
_SET = "select " + ", ".join(f"set_config('{name}', '{value}', {{local}})"
                             for name, value in SETTINGS.items())  # fmt: skip
SET_LOCAL = _SET.format(local="true")  # of the transaction alone, where a session is not our own
_SET_SESSION = _SET.format(local="false")
_LOOK = """
select pg_backend_pid(), current_schema(), current_setting('search_path'),
       current_setting('server_encoding'),
       current_setting('transaction_read_only'), current_setting('fsync'),
       current_setting('full_page_writes'), current_setting('synchronous_commit')
"""
_TIME = "select (extract(epoch from clock_timestamp()) * 1000)::bigint"


class Server(NamedTuple):
    """What there is to know of it."""

    schema: str
    is_read_only: bool
    is_fsync_off: bool
    is_commit_unsafe: bool
    prepares: bool  # the session is our own, so that statements may be prepared in it

    def warnings(self, name: str) -> list[str]:
        words = []
        if self.is_fsync_off:
            words.append(
                f"{name}: the server runs with fsync or full_page_writes off: when its machine "
                "loses power, answers that were paid for can be lost, and the database with them."
            )
        if self.is_commit_unsafe:
            words.append(
                f"{name}: synchronous_commit is off for this user or database: a crash of the "
                "server loses the answers of the last moments, which were paid for. Set it on: "
                "alter role ... set synchronous_commit = on"
            )
        return words


def connect(address: PostgresAddress, *, again: bool = False) -> tuple[psycopg.Connection, Server]:
    """A connection with our settings, no transaction begun. `again`: there was one before. Raises
    StoreAwayError where it may be made a while later, StoreError where not."""
    connection = _dial(address, again=again)
    try:
        with store_errors(address):
            return connection, _made_ready(connection, address)
    except BaseException:
        connection.close()
        raise


def open_connection(
    address: PostgresAddress, *, create: bool, to_write: bool, impatient: threading.Event
) -> tuple[psycopg.Connection, Server]:
    """A connection to a database whose schema is the newest. A server that is about to be there is
    waited for a moment, unless somebody is `impatient`. Raises as `connect` and `open_schema`."""
    give_up_at = time.monotonic() + _OPENING_S
    while True:
        try:
            return _opened(address, create=create, to_write=to_write)
        except PassingError:
            if time.monotonic() > give_up_at or impatient.wait(_OPEN_AGAIN_S):
                raise


def _opened(
    address: PostgresAddress, *, create: bool, to_write: bool
) -> tuple[psycopg.Connection, Server]:
    connection, server = connect(address)
    try:
        if to_write:
            refuse_read_only(server, address)
        open_schema(connection, server, address, create=create)
    except BaseException:
        connection.close()
        raise
    return connection, server


def follow_clock(connection: psycopg.Connection) -> None:
    """From now on times are those of the server's clock."""
    asked_ms = clock.own_ms()
    row = connection.execute(_TIME).fetchone()
    assert row is not None
    clock.follow(row[0], asked_ms, clock.own_ms())


def open_schema(
    connection: psycopg.Connection, server: Server, address: PostgresAddress, *, create: bool
) -> None:
    """Bring the schema to the newest. Raises UsageError when there is none and not `create`,
    SchemaError when it is not ours."""
    with store_errors(address):
        version = schema_version(connection, address)
        if not version and not create:
            raise UsageError(
                f"{address.name}: there is no work table in it yet.", Remedy.ENQUEUE_FIRST
            )
        if version < len(migrations()):
            if server.is_read_only:
                raise StoreError(
                    f"{address.name}: is a replica, or read only, and its tables are of an older "
                    "batchgen. Name the primary."
                )
            migrate(connection, address, server.schema)


def refuse_read_only(server: Server, address: PostgresAddress) -> None:
    if server.is_read_only:
        raise StoreError(
            f"{address.name}: takes no writes: it is a replica, or set to be read only. Name the "
            "primary; with several hosts in the address, add target_session_attrs=read-write."
        )


def _dial(address: PostgresAddress, *, again: bool) -> psycopg.Connection:
    try:
        given = conninfo.conninfo_to_dict(address.url)
    except psycopg.Error as exc:
        raise connect_error(exc, address) from None  # its words may be the URL
    named = {"fallback_application_name": f"batchgen {os.uname().nodename} pid {os.getpid()}"}
    options: dict[str, Any] = {**_DEFAULTS, **named, **given, "client_encoding": "utf8"}
    try:
        connection = psycopg.connect(**options, autocommit=True)
    except psycopg.Error as exc:
        raise connect_error(exc, address, again=again) from exc
    connection.prepare_threshold = None  # what it prepares, it forgets at a rollback, ours with it
    adapt(connection.adapters)
    return connection


def _made_ready(connection: psycopg.Connection, address: PostgresAddress) -> Server:
    version = connection.info.server_version // 10_000
    if version < MINIMUM_SERVER:
        raise StoreError(
            f"{address.name}: the server is PostgreSQL {version}; batchgen needs "
            f"{MINIMUM_SERVER} or newer."
        )
    follow_clock(connection)
    row = connection.execute(_LOOK).fetchone()
    assert row is not None
    backend, schema, path, encoding, read_only, fsync, pages, commit = row
    # A pooler between us and the server calls itself by another number. What is prepared or set in
    # one of its sessions, others have a moment later: their statement would run in place of ours.
    prepares = address.prepares and backend == connection.info.backend_pid
    if prepares:
        connection.execute(_SET_SESSION)
    if encoding != "UTF8":
        raise StoreError(
            f"{address.name}: the database has the encoding {encoding}, which cannot hold every "
            "text. Make one with: createdb -E UTF8 -T template0 NAME"
        )
    if schema is None:
        raise StoreError(
            f"{address.name}: there is no schema for its tables (search_path is {path}). Make it: "
            "create schema NAME"
        )
    return Server(schema, read_only == "on", "off" in (fsync, pages), commit == "off", prepares)
