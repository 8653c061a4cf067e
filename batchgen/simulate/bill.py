"""What the simulated model would charge for: the answers that it made, whether or not they arrived.
It is the proof that nothing was paid for twice."""

from collections import Counter
from itertools import islice
from typing import Any

from batchgen.simulate.answers import Chat

_KEPT = 200_000


class Bill:
    """`online` and `batch` count answers by the text of their last user message, if `keep_prompts`;
    `answers` counts those of both, `in_batches` those in batches, and `twice` the requests that
    were answered more than once: without the prompts, among the latest 200,000."""

    def __init__(self, *, keep_prompts: bool) -> None:
        self.online: Counter[str] = Counter()
        self.batch: Counter[str] = Counter()
        self.answers = self.in_batches = self.twice = 0
        self._keep_prompts = keep_prompts
        self._times: dict[bytes, int] = {}

    def add(self, chat: Chat, *, in_batch: bool) -> None:
        self.answers += 1
        self.in_batches += in_batch
        if self._keep_prompts:
            (self.batch if in_batch else self.online)[chat.text] += 1
        elif len(self._times) >= _KEPT:
            for oldest in list(islice(self._times, _KEPT // 2)):
                del self._times[oldest]
        key = chat.digest[:16]
        times = self._times[key] = self._times.get(key, 0) + 1
        self.twice += times == 2

    def of(self, text: str) -> int:
        """How many answers there were to prompts with `text`."""
        both = [*self.online.items(), *self.batch.items()]
        return sum(times for prompt, times in both if text in prompt)

    def to_json(self) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "in_batches": self.in_batches,
            "answered_twice": self.twice,
            "online": self.online,
            "batch": self.batch,
        }
