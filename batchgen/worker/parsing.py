"""The last stage of the work on an item: its answer is read by its parser, or the user's function
ends it without one; and what follows it in its chain.
"""

from batchgen.errors import ParseError
from batchgen.items import Decision, Done, Fail, Item, Reason
from batchgen.llm.decide import RetryPolicy, decide_parse_failure
from batchgen.parsers import ParserRunner, to_json
from batchgen.worker.requests import Prepared, PreparedCode


class AnswerParser:
    """Parses for one worker; to be closed in the end."""

    def __init__(self, policy: RetryPolicy, timeout_s: float) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._runner = ParserRunner()

    async def parse(
        self, item: Item, prepared: Prepared, text: str, vector: str | None = None
    ) -> Decision:
        """Done, or what follows when the parser cannot use the answer, or the next step has no use
        for what it made of it. A vector is no text, so nothing parses it."""
        try:
            parsed_json = None
            if prepared.parser.spec != "raw" and prepared.endpoint.has_text:
                given, parser = prepared.input.given, prepared.parser
                parsed_json = to_json(await self._runner.run(parser, text, given, self._timeout_s))
            if prepared.row is None:
                return Done(parsed_json)
            return Done(parsed_json, prepared.row.followed(parsed_json or vector, text))
        except ParseError as exc:
            return decide_parse_failure(item, str(exc), self._policy)

    async def run(self, prepared: PreparedCode) -> Decision:
        """What the function of a step makes of a row. What it raises once it raises again, so there
        is no further try."""
        row, function = prepared.row, prepared.present.function
        running = self._runner.run_step(function, row.first.given, row.values, self._timeout_s)
        try:
            parsed_json = to_json(await running, "the function")
            return Done(parsed_json, row.followed(parsed_json, None))
        except ParseError as exc:
            return Fail(Reason.PARSE, str(exc))

    def close(self) -> None:
        self._runner.close()
