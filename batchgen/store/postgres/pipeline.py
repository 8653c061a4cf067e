"""Statements on their way to the server, and their answers on the way back, in the same order.

While it is `under_way`, a statement is sent only when somebody asks for an answer: so all that were
given until then cost one way there and back, and wake each side once. The driver's own pipeline
sends each by itself, and takes ten times as long for one as libpq does, which is used here.
"""

import secrets
import select
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

_SOME_ROWS = 100
_MUCH = 1 << 14  # bytes, which the server may work on while we go on
_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)
_CANCEL_S = 5.0
_MOST_ENDS = 3  # in a row; one comes after each answer

_Key = tuple[bytes, tuple[int, ...]]


class Answer:
    """What a statement gives back; see `batchgen.store.transaction.Rows`."""

    __slots__ = ("_next", "_pipeline", "result")

    def __init__(self, pipeline: "Pipeline") -> None:
        self.result: PGresult | None = None
        self._pipeline = pipeline
        self._next = 0

    @property
    def rowcount(self) -> int:
        return self._come().command_tuples or 0

    @property
    def description(self) -> Sequence[tuple[str]]:
        result = self._come()
        return [((result.fname(n) or b"").decode(),) for n in range(result.nfields)]

    def fetchone(self) -> Any:
        rows = self._rows(1)
        return rows[0] if rows else None

    def fetchall(self) -> list[Any]:
        return self._rows(self._come().ntuples)

    def __iter__(self) -> Iterator[Any]:
        while some := self._rows(_SOME_ROWS):
            yield from some

    def _rows(self, most: int) -> list[tuple[Any, ...]]:
        result, first = self._come(), self._next
        self._next = min(result.ntuples, first + most)
        return self._pipeline.rows_of(result, first, self._next)

    def _come(self) -> PGresult:
        if self.result is None:
            self._pipeline.wait()
        assert self.result is not None
        return self.result


class Pipeline:
    """That of a connection, of which it makes use alone while it is under way. Otherwise a
    statement is sent, and its answer waited for, at once."""

    def __init__(self, connection: psycopg.Connection, *, prepares: bool) -> None:
        self.connection = connection
        self._server = connection.pgconn
        self._values, self._loads = Transformer(connection), Transformer(connection)
        self._poll = select.poll()
        # An answer, or what is being prepared.
        self._awaited: deque[Answer | _Key] = deque()
        self._prepares = prepares
        self._names: dict[_Key, bytes] = {}  # none: it was sent once, and is not prepared
        # Behind a pooler that is not seen, nobody runs another's statement by the name of his own.
        self._own_name = f"batchgen_{secrets.token_hex(4)}"
        self._prepared = 0
        self._is_under_way = False

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """In the end all statements have been run, or the first that failed is raised. Where
        anything is raised the server has ended what it was told, but for a transaction."""
        self._server.enter_pipeline_mode()
        self._is_under_way = True
        try:
            yield
            self._end(is_wanted=True)
        except BaseException as exc:
            self._give_up(exc)
            raise
        finally:
            self._is_under_way = False

    def send(
        self, text: bytes, values: Sequence[object] = (), *, binary: bool = False
    ) -> Answer:  # fmt: skip
        """`binary`: its rows, which are then read without a step in Python for each."""
        answer = Answer(self)
        dumped = self._values.dump_sequence(values, [PyFormat.AUTO] * len(values))
        types, formats = self._values.types or (), self._values.formats
        result_format = Format.BINARY if binary else Format.TEXT
        name = self._name(text, types)
        if name:
            self._server.send_query_prepared(name, dumped, formats, result_format)
        else:
            self._server.send_query_params(text, dumped, types, formats, result_format)
        self._awaited.append(answer)
        if not self._is_under_way:
            self.wait()
            self._server.get_result()  # none: it is the end of them
        elif sum([len(one) for one in dumped if one is not None]) > _MUCH:
            self._server.flush()
        return answer

    def wait(self) -> None:
        """For the answers of all that was sent. Raises what went wrong first."""
        if self._is_under_way:
            self._server.send_flush_request()
        if (problem := self._receive_all()) is not None:
            raise problem

    def rows_of(self, result: PGresult, first: int, end: int) -> list[tuple[Any, ...]]:
        if first == end:
            return []
        if self._loads.pgresult is not result:
            self._loads.set_pgresult(result)
        return self._loads.load_rows(first, end, tuple)

    def _name(self, text: bytes, types: Sequence[int]) -> bytes:
        """Of a statement that is prepared, as it is from the second time on; else none."""
        if not self._prepares or not self._is_under_way:
            return b""
        key = text, tuple(types)
        name = self._names.get(key)
        if name is None:
            self._names[key] = b""
        elif not name:
            self._prepared += 1
            name = self._names[key] = f"{self._own_name}_{self._prepared}".encode()
            self._server.send_prepare(name, text, types)
            self._awaited.append(key)
        return name or b""

    def _end(self, *, is_wanted: bool) -> None:
        self._server.pipeline_sync()
        problem = self._receive_all()
        self._next_result()  # of the end itself
        self._server.exit_pipeline_mode()
        if is_wanted and problem is not None:
            raise problem

    def _give_up(self, exc: BaseException) -> None:
        """Whoever interrupts a statement does not wait for its end."""
        try:
            if self._server.pipeline_status and isinstance(exc, Exception):
                self._end(is_wanted=False)
            elif self._server.pipeline_status:
                self.connection.cancel_safe(timeout=_CANCEL_S)
        except psycopg.Error:
            self.connection.close()
        finally:
            if self._server.pipeline_status:
                self.connection.close()

    def _receive_all(self) -> psycopg.Error | None:
        self._flush()
        first: psycopg.Error | None = None
        while self._awaited:
            problem = self._receive()
            first = first or problem
        return first

    def _receive(self) -> psycopg.Error | None:
        """The next answer; what went wrong with it."""
        result = self._next_result()
        awaited = self._awaited.popleft()
        problem: psycopg.Error | None = None
        if result.status in _FAILED:
            problem = errors.error_from_result(result, "utf-8")
        elif result.status == ExecStatus.PIPELINE_ABORTED:
            problem = errors.PipelineAborted("another statement failed before")
        if isinstance(awaited, Answer):
            awaited.result = result
        elif problem is not None:
            del self._names[awaited]
        return problem

    def _next_result(self) -> PGresult:
        for _ in range(_MOST_ENDS):
            while self._server.is_busy():
                self._wait(select.POLLIN)
                self._server.consume_input()
            if (result := self._server.get_result()) is not None:
                return result
        raise psycopg.OperationalError("the connection was lost")

    def _flush(self) -> None:
        """The server may not take more before its answers are taken."""
        while self._server.flush():
            if self._wait(select.POLLIN | select.POLLOUT) & ~select.POLLOUT:
                self._server.consume_input()

    def _wait(self, events: int) -> int:
        if self._server.status != ConnStatus.OK:
            raise psycopg.OperationalError("the connection was lost")
        self._poll.register(self._server.socket, events)
        [(_, ready)] = self._poll.poll()
        return ready
