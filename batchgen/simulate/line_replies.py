"""The replies to lines of batches: what a call with the same body would get, as far as a file can
say it."""

import json
from typing import Any

from batchgen.simulate.batch import Batch
from batchgen.simulate.batch_input import Line
from batchgen.simulate.behaviours import Behaviour, error_object
from batchgen.simulate.bill import Bill
from batchgen.simulate.call_log import CallLog
from batchgen.simulate.deciding import Decider
from batchgen.simulate.endpoints import answer, asked

_NO_REPLY = ("reset", "hang", "trickle", "html", "cut", "bad_json")


class LineReplies:
    """Enters them in the log, and on the bill."""

    def __init__(self, decider: Decider, log: CallLog, bill: Bill) -> None:
        self._decider = decider
        self._log = log
        self._bill = bill

    def reply(self, batch: Batch, line: Line) -> tuple[int, Any]:
        """Its status and its body. Where a call would get no reply, or none that can be read, the
        provider has had trouble with itself: 500."""
        chat = asked(line.url.removeprefix("/v1"), line.body)
        behaviour, tries = Behaviour.error(400, message="the body of this line is no request"), 0
        if chat is not None:
            behaviour, tries = self._decider.decide_line(chat)
            if self._decider.is_drawn(chat, tries, batch.faults.get("server_error", 0)):
                behaviour = Behaviour.error(500)
        outcome = behaviour.outcome
        self._log.write(chat, tries, outcome, batch=batch.id, custom_id=line.custom_id)
        if behaviour.kind in _NO_REPLY:
            return 500, json.loads(error_object(500, "The server had an error."))
        if chat is None or behaviour.kind == "status":
            return behaviour.status, _body_of_status(behaviour)
        self._bill.add(chat, in_batch=True)
        return 200, json.loads(answer(chat, behaviour.kind, behaviour.text))


def _body_of_status(behaviour: Behaviour) -> Any:
    if behaviour.body is None:
        return json.loads(error_object(behaviour.status, f"simulated {behaviour.status}"))
    raw = behaviour.body
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    try:
        return json.loads(text)
    except ValueError:
        return text
