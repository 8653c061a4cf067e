"""One connection to the server, and transactions on it, of one thread: begun, ended, and where the
connection is lost in the middle, brought to an end that is known.

Whether a transaction has landed of whose COMMIT nobody heard, the server tells. Each has a number
of the server's, which is known here before its COMMIT is sent, and by which another connection can
ask whether it has ended. Each also leaves a row of its own in `commits`, which is there if it has
landed: the server's number would not do, since after a crash it gives out again those of which
nothing had come to the disk. So a transaction that was lost is done again if it has not landed, and
only then. Its function may have run more than once, and only the last time counts.
"""

import math
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, TypeVar

import psycopg
from psycopg import errors

from batchgen.database_address import PostgresAddress
from batchgen.errors import MovedError, Remedy, StoreAwayError, StoreBusyError, StoreError
from batchgen.store.postgres.holders import end_who_stopped, who_holds
from batchgen.store.postgres.locks import WRITING, lock_key
from batchgen.store.postgres.opening import SET_LOCAL, STOPPED, Server, connect, follow_clock
from batchgen.store.postgres.pipeline import Answer, Pipeline
from batchgen.store.postgres.problems import is_lost, is_worth_another_try, store_error
from batchgen.store.postgres.transaction import MustBeAlone, PostgresTransaction
from batchgen.store.tables import moved_error, moved_words

T = TypeVar("T")

_DIAL_AGAIN_S = (0.05, 5.0)  # the first pause, and the longest
_UNHEARD_LOOK_S = 0.1
_MOST_TRIES = 20  # of a transaction that is given up for another's sake
_SETTLING_MS = 200
_SETTLE_S = 30.0  # longer than a process that stopped can keep the others
_BUSY_S = 60.0  # for who waits for the lock; its own wait is `lock_timeout`, again and again

_LOCK = b"select pg_advisory_xact_lock($1::int, $2::int)"
# One statement, as each costs as much as some rows.
_NOTE_AND_LOCK = (
    b"with noted as (insert into commits (session, number) values ($3::bigint, $4::bigint))"
    b" select pg_advisory_xact_lock%s($1::int, $2::int), pg_current_xact_id()::text"
)
_FORGET = b"delete from commits where session = $1::bigint and number < $2::bigint"
_FORGET_ALL = b"delete from commits where session = $1::bigint or at < now() - interval '30 days'"
_IS_NOTED = b"select count(*) from commits where session = $1::bigint and number = $2::bigint"
_STATUS = b"select pg_xact_status($1::text::xid8)"
# A pooler's sessions (0) have numbers of processes that are not ours.
_END_IT = (
    b"select pg_terminate_backend(pid) from pg_stat_activity"
    b" where backend_xid = $1::text::xid8::xid and $2::int in (pid, 0)"
)
_MOVED_TO = b"select other from moves where went = 1"
_FORGET_EVERY = 100

# A statement that was prepared is not there, or one is there that was not.
_OTHERS_STATEMENT = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)


class Mode(NamedTuple):
    """A kind of transaction. `alone`: no other one that writes is under way meanwhile; None: it
    does not matter."""

    begin: bytes
    lock: bytes | None
    writes: bool
    alone: bool | None


ALONE = Mode(b"begin", _NOTE_AND_LOCK % b"", writes=True, alone=True)
BESIDE = Mode(b"begin", _NOTE_AND_LOCK % b"_shared", writes=True, alone=False)
SNAPSHOT = Mode(b"begin isolation level repeatable read read only", None, writes=False, alone=None)
# Each statement sees what there is when it begins; as nobody writes, all see the same.
SETTLED = Mode(b"begin read only", _LOCK, writes=False, alone=True)


class _Attempt:
    """How far a transaction came. With a number, its COMMIT may have been sent. `note` is its row
    in `commits`, and `pid` the process of the server that had it."""

    number: str | None = None
    result: object = None
    note = 0
    pid = 0


class Session:
    """`patience_s`: for how long a server that is away is waited for, by the setting
    `patience_from`; `say_away` gets why, once."""

    def __init__(
        self, address: PostgresAddress, connection: psycopg.Connection, server: Server,
        own: Mapping[str, object],
    ) -> None:  # fmt: skip
        self.server = server
        self.patience_s, self.patience_from = 600.0, ""
        self.say_away: Callable[[str], None] = lambda _: None
        self.impatient = threading.Event()  # somebody waits for the end, whichever it is
        self._has_given_up = False  # then a try is enough, until one succeeds
        self._is_cut = False  # then no other is made for who waits
        self._address = address
        self._connection: psycopg.Connection | None = connection
        self._pipeline: Pipeline | None = None
        self._own = own
        self._id, self._notes = secrets.randbits(63), 0
        self._began_s: float | None = None  # of the monotonic clock; none: none is under way
        self._longest_s = 0.0

    def held_up_s(self) -> float:
        """On its thread: the longest that a transaction took since this was asked before, the one
        under way included; without end where the connection was lost."""
        under_way_s = 0.0 if self._began_s is None else time.monotonic() - self._began_s
        longest_s, self._longest_s = max(self._longest_s, under_way_s), 0.0
        return longest_s

    def run(self, mode: Mode, transaction: Callable[[PostgresTransaction], T]) -> T:
        """What `transaction` gives back, when it is durable; or it raises, and nothing of it is
        there."""
        self._began_s, self._is_cut = time.monotonic(), False
        try:
            return self._run(mode, transaction)
        finally:
            self._longest_s = max(self._longest_s, time.monotonic() - self._began_s)
            self._began_s = None

    def run_once(self, mode: Mode, transaction: Callable[[PostgresTransaction], object]) -> None:
        """As `run`, if the connection is there, and of no other one: nobody waits for it."""
        try:
            self._once(mode, transaction, _Attempt())
        except psycopg.Error as exc:
            self._has_lost(exc)

    def _run(self, mode: Mode, transaction: Callable[[PostgresTransaction], T]) -> T:
        settle_until = time.monotonic() + _SETTLE_S
        busy_until = time.monotonic() + _BUSY_S
        give_up_at: float | None = None
        tries = 0
        while True:
            attempt = _Attempt()
            try:
                return self._once(mode, transaction, attempt)
            except MustBeAlone:
                mode = ALONE
            except psycopg.Error as exc:
                tries += 1
                if self._has_lost(exc):
                    patience_s = 0.0 if self._has_given_up else self.patience_s
                    give_up_at = give_up_at or time.monotonic() + patience_s
                    if self._landed_after_all(exc, attempt, give_up_at):
                        return attempt.result  # type: ignore[return-value]
                elif is_worth_another_try(exc) and tries < _MOST_TRIES:
                    time.sleep(random.uniform(0, 0.01 * tries))
                elif mode is SETTLED and isinstance(exc, errors.LockNotAvailable):
                    self._wait_to_settle(settle_until, exc)
                elif isinstance(exc, errors.LockNotAvailable) and (
                    self._end_who_stopped() or time.monotonic() < busy_until
                ):
                    pass
                elif self.server.prepares and isinstance(exc, _OTHERS_STATEMENT):
                    self._prepare_no_more()
                else:
                    raise self._as_ours(exc) from exc

    def compare_clocks(self) -> None:
        """Where the connection is lost, the next one does it."""
        if self._connection is None:
            return
        try:
            follow_clock(self._connection)
        except psycopg.Error as exc:
            if not self._has_lost(exc):
                raise self._as_ours(exc) from exc

    def cut(self) -> None:
        """From another thread: who waits for the server hears that the connection is lost. Nothing
        else ends that of a server which stands still, as its network is there."""
        self._is_cut = self._has_given_up = True
        connection = self._connection
        if connection is None or connection.closed:
            return
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as own,
        ):
            own.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._connection is None:
            return
        with suppress(psycopg.Error):
            Pipeline(self._connection, prepares=False).send(_FORGET_ALL, [self._id])
        self._connection.close()

    def _once(
        self, mode: Mode, transaction: Callable[[PostgresTransaction], T], attempt: _Attempt
    ) -> T:
        connection = self._connection
        if connection is None:
            raise psycopg.OperationalError("the connection was lost")
        try:
            pipeline = self._pipeline_of(connection)
            with pipeline.under_way():
                number = self._begin(pipeline, mode, attempt)
                result = transaction(self._transaction(pipeline, mode))
                if number is not None:
                    attempt.result = result
                    attempt.number = number.fetchone()[1]
                pipeline.send(b"commit")
        except BaseException:
            _roll_back(connection)
            raise
        return result

    def _pipeline_of(self, connection: psycopg.Connection) -> Pipeline:
        if self._pipeline is None or self._pipeline.connection is not connection:
            self._pipeline = Pipeline(connection, prepares=self.server.prepares)
        return self._pipeline

    def _transaction(self, pipeline: Pipeline, mode: Mode) -> PostgresTransaction:
        is_alone = mode.alone is not False
        return PostgresTransaction(pipeline, self.server.schema, self._own, is_alone=is_alone)

    def _begin(self, pipeline: Pipeline, mode: Mode, attempt: _Attempt) -> Answer | None:
        """The number of what writes."""
        pipeline.send(mode.begin)
        if not self.server.prepares:
            pipeline.send(SET_LOCAL.encode())
        if mode is SETTLED:
            pipeline.send(f"set local lock_timeout = {_SETTLING_MS}".encode())
        if mode.lock is None:
            return None
        key = lock_key(self.server.schema, WRITING)
        if not mode.writes:
            pipeline.send(mode.lock, key)
            return None
        self._notes = attempt.note = self._notes + 1
        attempt.pid = pipeline.connection.info.backend_pid if self.server.prepares else 0
        locked = pipeline.send(mode.lock, [*key, self._id, attempt.note])
        if attempt.note % _FORGET_EVERY == 0:
            pipeline.send(_FORGET, [self._id, attempt.note])
        return locked

    def _prepare_no_more(self) -> None:
        """A pooler stands before the server, and what was prepared was prepared in a session that
        others have by now."""
        self._address = self._address._replace(prepares=False)
        self.close()
        self._connection, self.server = connect(self._address)

    def _has_lost(self, exc: psycopg.Error) -> bool:
        """Whether the connection is of no use any more; then it is dropped."""
        connection = self._connection
        if connection is not None and not connection.closed and not is_lost(exc):
            return False
        if connection is not None:
            connection.close()
            self._connection = None
        return True

    def _landed_after_all(self, exc: psycopg.Error, attempt: _Attempt, give_up_at: float) -> bool:
        """With a new connection. Raises StoreAwayError when there is none; where a COMMIT may have
        been sent, StoreError, as then nobody knows."""
        try:
            self._connect_again(give_up_at)
            return attempt.number is not None and self._has_landed(attempt, give_up_at)
        except StoreAwayError as away:
            if attempt.number is None:
                raise
            raise StoreError(
                f"{away} What was being written when the server went away may be there, or not: "
                "nobody knows until it is back.",
                Remedy.RUN_AGAIN,
            ) from exc

    def _connect_again(self, give_up_at: float) -> None:
        if self._is_cut:
            raise StoreAwayError(
                f"{self._address.name}: no answer from the database, and no time to wait for it. "
                "See that its server goes on.",
                Remedy.RUN_AGAIN,
            )
        pause_s, longest_s = _DIAL_AGAIN_S
        is_told = False
        while self._connection is None:
            try:
                self._connection, self.server = self._connected()
            except StoreAwayError as away:
                self._has_given_up |= time.monotonic() > give_up_at
                if self.impatient.is_set():
                    raise
                if self._has_given_up:
                    raise self._given_up(away) from away
                if not is_told and pause_s > 1:
                    is_told = True
                    self.say_away(f"{away} Trying again for {self.patience_s:g} s.")
                self.impatient.wait(random.uniform(pause_s / 2, pause_s))
                pause_s = min(2 * pause_s, longest_s)
            else:
                self._has_given_up = False
                self._longest_s = math.inf

    def _given_up(self, away: StoreAwayError) -> StoreAwayError:
        how_long = f"{self.patience_s:g} s{self.patience_from and f' ({self.patience_from})'}"
        return StoreAwayError(
            f"{away} Gave up after {how_long}. See that it runs again.", Remedy.RUN_AGAIN
        )

    def _connected(self) -> tuple[psycopg.Connection, Server]:
        """Where there was a server that took writes there will be one again: until a standby has
        taken over, it is away."""
        connection, server = connect(self._address, again=True)
        if server.is_read_only and self._notes:
            connection.close()
            raise StoreAwayError(
                f"{self._address.name}: takes no writes any more: it is a replica that has not "
                "taken over yet, or was set to be read only.",
                Remedy.RUN_AGAIN,
            )
        return connection, server

    def _has_landed(self, attempt: _Attempt, give_up_at: float) -> bool:
        """The server may not have seen yet that the connection is gone."""
        while True:
            try:
                status = self._ask(_STATUS, attempt.number)
                if status != "in progress":
                    return bool(self._ask(_IS_NOTED, self._id, attempt.note))
                self._ask(_END_IT, attempt.number, attempt.pid)
            except errors.InvalidParameterValue:  # in the future, to a replica that took over
                return False
            except psycopg.Error as exc:
                if not self._has_lost(exc):
                    raise self._as_ours(exc) from exc
                self._connect_again(give_up_at)
                continue
            if time.monotonic() > give_up_at:
                raise StoreAwayError(
                    f"{self._address.name}: the server has not ended a transaction whose "
                    "connection was lost."
                )
            time.sleep(_UNHEARD_LOOK_S)

    def _ask(self, text: bytes, *values: object) -> object:
        assert self._connection is not None
        row = Pipeline(self._connection, prepares=False).send(text, values).fetchone()
        return row and row[0]

    def _end_who_stopped(self) -> bool:
        assert self._connection is not None
        return end_who_stopped(self._connection, self.server.schema, STOPPED)

    def _wait_to_settle(self, until: float, exc: psycopg.Error) -> None:
        """Others write all the time, and to be alone with many takes luck."""
        self._end_who_stopped()
        if time.monotonic() > until:
            raise StoreBusyError(
                f"{self._address.name}: another process has been writing for {_SETTLE_S:g} s.",
                Remedy.RUN_AGAIN,
            ) from exc
        time.sleep(random.uniform(0.01, 0.05))

    def _as_ours(self, exc: psycopg.Error) -> StoreError:
        assert self._connection is not None
        if isinstance(exc, errors.InsufficientPrivilege) and (moved := self._moved()):
            return moved
        who = isinstance(exc, errors.LockNotAvailable) and who_holds(
            self._connection, self.server.schema, WRITING
        )
        if who:
            return StoreBusyError(
                f"{self._address.name}: another process has kept the database locked for too long "
                f"({who}). Let it finish, continue it if it is stopped (fg), or end it.",
                Remedy.RUN_AGAIN,
            )
        return store_error(exc, self._address)

    def _moved(self) -> MovedError | None:
        """Who lacks rights is denied before the tables say that they take no more work."""
        with suppress(psycopg.Error):
            if other := self._ask(_MOVED_TO):
                return moved_error(self._address.name, moved_words(str(other)))
        return None


def _roll_back(connection: psycopg.Connection) -> None:
    if connection.closed or connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        return
    try:
        connection.execute(b"rollback")
    except psycopg.Error:
        connection.close()  # which does it too
