"""What an endpoint is: how a request to it is made, and how a reply of it is read. Pure.

A recipe and its params are written in one vocabulary, that of chat completions, whose names people
know. An endpoint that calls something else translates it, and takes its own names too. What it
certainly does not take it refuses, before anything is asked; `extra_body` goes in as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct, field

from batchgen.errors import ConfigError
from batchgen.items import Answer, Failure, Reply

Message = Mapping[str, Any]
Body = dict[str, Any]

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""What the most tokens that an answer may have is called, by this endpoint or another one."""


class ErrorInside(NamedTuple):
    """The server put an error where its answer should be; `status` is the one that fits it, if its
    code says so, and the answer `has_begun` when some of it stands beside the error."""

    error: Any
    status: int | None = None
    has_begun: bool = False


class Endpoint(Struct, frozen=True, eq=False, kw_only=True):
    """`name` is that of the config, `path` follows the base URL, and `answer` is what a reply
    holds, in words; `sign` stands in the body of each answer.

    `prompt` makes the members of a request that hold its prompt, `prompt_members` are their names,
    and `conversation` is the one that can be a list of messages; without it, a prompt is one text.
    `params` calls parameters as the endpoint does, `origins` says which of the config's become one
    of its own, `added` are those that it has in each request, `streaming` those that ask for a
    stream or for none, and `refused` those that it does not take.

    `read` says what the body of a successful reply is; `whole` makes that body again out of the
    parts that an answer is stored as (`Answer.rest`, its text, its vector), and `beside_text` finds
    what else a body holds: `reasoning`, `tool_calls` and `logprobs`.
    """

    name: str
    path: str
    answer: str
    sign: str
    prompt: Callable[[Sequence[Message]], Body]
    prompt_members: tuple[str, ...]
    read: Callable[[Reply, Body], Answer | Failure | ErrorInside]
    whole: Callable[[Body, str, Any], Body]
    beside_text: Callable[[Body], Mapping[str, Any]] = lambda _: {}
    params: Callable[[Mapping[str, Any]], Body] = dict
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    streaming: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    conversation: str | None = None
    has_seed: bool = True  # so that samples differ
    has_text: bool = True  # False: its answer is a vector

    def takes(self, params: Mapping[str, Any]) -> Body:
        """Those of the params that it does not refuse."""
        return {name: value for name, value in params.items() if name not in self.refused}

    def check_taken(self, params: Mapping[str, Any], place: str = "") -> None:
        """Raises ConfigError for those that it refuses; `place` goes before their names."""
        refused = [name for name, value in params.items()
                   if name in self.refused and value is not None]  # fmt: skip
        if refused:
            names = ", ".join(f"{place}{name}" for name in refused)
            instead = " (it is max_tokens there)" if refused == ["max_output_tokens"] else ""
            raise ConfigError(
                f"{names}: the endpoint {self.name} has no such parameter{instead}. Leave it out, "
                "or, if your server takes it all the same, put it under extra_body"
            )

    def origins_of(self, name: str) -> tuple[str, ...]:
        """What a parameter of a request may be called in the config, and in an item."""
        return (name, *self.origins.get(name, ()))

    def called(self, name: str) -> str:
        """What a parameter of the config is called in a request."""
        return next((own for own, names in self.origins.items() if name in names), name)

    def messages_of(self, body: Mapping[str, Any]) -> list[Any]:
        """The messages of a request, if it has a list of them."""
        found = body.get(self.conversation) if self.conversation else None
        return found if isinstance(found, list) else []

    def most_tokens(self, body: Mapping[str, Any]) -> int | None:
        """The most tokens that the answer to a request can have; None when nothing limits them."""
        if not self.has_text:
            return 0
        return max((body[name] for name in LIMITS if _is_limit(body.get(name))), default=None)


def _is_limit(value: Any) -> bool:
    """What is none, like 0 or -1, a server may take for no limit at all."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def text_alone(messages: Sequence[Message]) -> str:
    """The prompt of an endpoint that takes one text: that of the last message, the user's."""
    content = messages[-1].get("content")
    return content if isinstance(content, str) else ""
