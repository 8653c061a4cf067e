"""Who holds a lock of ours, and keeps others waiting for it."""

import psycopg
from psycopg import RawCursor

from batchgen.store.postgres.locks import MOVING, WRITING, lock_key

_WHO = b"""
select concat_ws(', ', nullif(a.application_name, ''), 'pid ' || a.pid, 'from ' || a.client_addr,
                 a.state)
  from pg_locks l join pg_stat_activity a on a.pid = l.pid
 where l.locktype = 'advisory' and l.granted and l.pid <> pg_backend_pid()
   and l.classid = $1::int::oid and l.objid = $2::int::oid and l.objsubid = 2
 order by a.xact_start limit 1
"""
# Who stopped in the middle of a transaction (a laptop's lid, a machine without power), before it
# asked for more, or read what it had asked for. No timeout of the server's does it: until the end
# of the pipeline it takes such a client for one at work. A move is silent for as long as it fills a
# table, or proves what it has moved, and is left alone.
_END_WHO_STOPPED = b"""
select count(pg_terminate_backend(a.pid))
  from pg_locks l join pg_stat_activity a on a.pid = l.pid
 where l.locktype = 'advisory' and l.granted and l.pid <> pg_backend_pid()
   and l.classid = $1::int::oid and l.objid = $2::int::oid and l.objsubid = 2
   and a.datname = current_database() and a.wait_event in ('ClientRead', 'ClientWrite')
   and clock_timestamp() - greatest(a.query_start, a.state_change) > $4::text::interval
   and not exists (select from pg_locks m
                    where m.pid = a.pid and m.locktype = 'advisory' and m.granted
                      and m.classid = l.classid and m.objid = $3::int::oid and m.objsubid = 2)
"""


def who_holds(connection: psycopg.Connection, schema: str, kind: str) -> str | None:
    """For a message."""
    try:
        row = RawCursor(connection).execute(_WHO, lock_key(schema, kind)).fetchone()
    except psycopg.Error:
        return None
    return None if row is None else str(row[0])


def end_who_stopped(connection: psycopg.Connection, schema: str, silent_for: str) -> bool:
    """Whether one that writes was silent for so long, in the middle of a transaction."""
    values = [*lock_key(schema, WRITING), lock_key(schema, MOVING)[1], silent_for]
    try:
        row = RawCursor(connection).execute(_END_WHO_STOPPED, values).fetchone()
    except psycopg.Error:  # of another role's sessions that may not be done
        return False
    return row is not None and bool(row[0])
