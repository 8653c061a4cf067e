"""A transaction on a connection to PostgreSQL: its statements by name.

Its pipeline waits for an answer only when somebody asks for it. So what is written costs no way to
the server and back, and of several reads that are begun together all cost one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchgen.store.postgres.adapting import as_json, with_spans
from batchgen.store.postgres.locks import lock_keys
from batchgen.store.postgres.pipeline import Answer, Pipeline
from batchgen.store.postgres.sql import STATEMENTS, Statement

_NOTHING: Mapping[str, object] = {}
_LOCK = (
    b"select pg_advisory_xact_lock($1::int, key::int) from json_array_elements_text($2::json) key"
)
_NEW = b"select new_numbers($1, $2)"
_NUMBERS = ("items", "attempts", "results")


class MustBeAlone(Exception):  # noqa: N818  no error: the transaction begins anew
    """It was begun beside others."""


class PostgresTransaction:
    """See `batchgen.store.transaction`. Begun and ended by who has the pipeline.

    `own` are the parameters that the engine gives to statements by itself: `this_worker`, the
    number of the worker that writes (0: none), and `this_machine`, where its files are.
    """

    __slots__ = ("_is_alone", "_own", "_schema", "pipeline")
    is_far = True

    def __init__(
        self, pipeline: Pipeline, schema: str, own: Mapping[str, object], *,
        is_alone: bool = True,
    ) -> None:  # fmt: skip
        self.pipeline = pipeline
        self._schema = schema
        self._own = own
        self._is_alone = is_alone

    def execute(self, name: str, parameters: Mapping[str, object] = _NOTHING) -> Answer:
        statement = STATEMENTS[name]
        if statement.takes_rows:
            parameters = _of_rows(statement, [parameters])
        return self._run(statement, parameters)

    def rows_in_binary(
        self, name: str, parameters: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:  # fmt: skip
        """All that a statement gives back: of thousands, read without a step in Python for each."""
        statement = STATEMENTS[name]
        values = statement.values(parameters)
        return self.pipeline.send(statement.text, values, binary=True).fetchall()

    def execute_many(self, name: str, rows: Sequence[Mapping[str, object]]) -> int:
        """One statement for all of the rows, which it has as `:rows`. Nobody waits for it, so it
        cannot tell how many it has changed."""
        if rows:
            statement = STATEMENTS[name]
            self._run(statement, _of_rows(statement, rows))
        return -1 if rows else 0

    def first_new(self, table: str, n: int = 1) -> int:
        return self.begin_new(table, n)()

    def begin_new(self, table: str, n: int) -> Callable[[], int]:
        if not n:
            return int
        begun = self.pipeline.send(_NEW, [table, n])
        return lambda: int(begun.fetchone()[0])

    def newest(self, table: str) -> int:
        assert table in _NUMBERS
        text = f"select case when is_called then last_value else 0 end from {table}_numbers"  # noqa: S608
        (newest,) = self._fetched(text, [])
        return int(newest)

    def alone(self) -> None:
        if not self._is_alone:
            raise MustBeAlone

    def lock(self, kind: str, keys: Sequence[object] = ()) -> None:
        first, seconds = lock_keys(self._schema, kind, keys or [""])
        self.pipeline.send(_LOCK, [first, str(seconds)])

    def _run(self, statement: Statement, parameters: Mapping[str, object]) -> Answer:
        if statement.takes_own:
            parameters = {**self._own, **parameters}
        return self.pipeline.send(statement.text, statement.values(parameters))

    def _fetched(self, text: str, values: list[object]) -> tuple[Any, ...]:
        return tuple(self.pipeline.send(text.encode(), values).fetchone())


def _of_rows(statement: Statement, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    if not statement.spans:
        return {"rows": as_json(rows)}
    short, texts = with_spans(rows, statement.spans)
    return {"rows": as_json(short), "texts": texts}
