"""The last stage of the work on an item: its answer is read by its parser."""

from batchgen.errors import ParseError
from batchgen.items import Decision, Done, Item
from batchgen.llm.decide import RetryPolicy, decide_parse_failure
from batchgen.parsers import ParserRunner, to_json
from batchgen.worker.requests import Prepared


class AnswerParser:
    """Parses for one worker; to be closed in the end."""

    def __init__(self, policy: RetryPolicy, timeout_s: float) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._runner = ParserRunner()

    async def parse(self, item: Item, prepared: Prepared, text: str) -> Decision:
        """Done, or what follows when the parser cannot use the answer. A vector is no text, so
        nothing parses it."""
        if prepared.parser.spec == "raw" or not prepared.endpoint.has_text:
            return Done(None)
        given = prepared.input.given
        try:
            parsed = await self._runner.run(prepared.parser, text, given, self._timeout_s)
            return Done(to_json(parsed))
        except ParseError as exc:
            return decide_parse_failure(item, str(exc), self._policy)

    def close(self) -> None:
        self._runner.close()
