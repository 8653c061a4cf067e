"""The vocabulary: frozen values that the other modules pass to each other. No I/O, no clock.

An item's life, and who moves it:

    pending   enqueued, or waiting for another try. A worker claims it when a slot is free and
              `available_at` has passed. A crash does not change it.
    running   claimed: a call may be in flight. An outcome ends this state or, when the worker died,
              the worker that takes over.
    done      answered and parsed. Only another parser, `--recipe again` and `retry --done` change
              that.
    failed    given up, with a reason. Only another parser, `--recipe replace` or `again`, and
              `retry` change that.
    stale     of a later step: what it was made of is being replaced, or has been. Only the same
              value of its parent once more, and `retry --stale`, change that.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.steps import Followed, Link


class State(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STALE = "stale"


class Reason(StrEnum):
    """Why an attempt or an item failed; docs/failures.md says what follows from each."""

    RATE_LIMIT = "rate_limit"
    SERVER = "server"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    BAD_RESPONSE = "bad_response"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    PARSE = "parse"
    REJECTED = "rejected"
    CRASH = "crash"


class Template(Struct, frozen=True):
    """A prompt template. `name` is only for messages: a moved file is the same template."""

    text: str
    syntax: Literal["braces", "jinja2"] = "braces"
    name: str = ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Template):
            return NotImplemented
        return (self.text, self.syntax) == (other.text, other.syntax)

    def __hash__(self) -> int:
        return hash((self.text, self.syntax))


class Recipe(Struct, frozen=True):
    """Everything that decides what an item is asked; stored by content.

    `endpoint` is the name of one in `endpoints`, and `params` are the parameters besides model and
    prompt, called as in the config. One that `runs_code` is of a step whose rows a function of the
    user ends without a call: which one, its experiment tells, as it tells the parser; there is
    nothing else in such a recipe.
    """

    system: Template | None
    user: Template | None
    model: str
    params: Mapping[str, Any]
    endpoint: str = "chat"
    runs_code: bool = False

    def to_json(self) -> str:
        """The stored form; `digest` is its hash."""
        from batchgen.text.json_text import canonical_json  # here: most commands have no use for it

        return canonical_json(
            {
                "system": _template_object(self.system),
                "user": _template_object(self.user),
                "model": self.model,
                "params": dict(self.params),
                "endpoint": self.endpoint,
                **({"runs_code": True} if self.runs_code else {}),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        import json  # here, too

        stored = json.loads(text)
        return cls(
            system=_template_from(stored["system"], "system template"),
            user=_template_from(stored["user"], "user template"),
            model=stored["model"],
            params=stored["params"],
            endpoint=stored["endpoint"],
            runs_code=stored.get("runs_code", False),
        )

    def digest(self) -> bytes:
        import hashlib  # here: OpenSSL takes a while to load, and who only reads has no use for it

        return hashlib.sha256(self.to_json().encode()).digest()


class ParserVersion(Struct, frozen=True):
    """A parser as it was at a time. `spec` names it as in the config (`raw`, `tag:draft`,
    `module:function`...), and `fingerprint` tells what is behind the name: another one is another
    parser. "" means that the spec says all. `sources` are the files of its code, by their paths:
    while their SHA-256 is the same, so is the parser."""

    spec: str
    fingerprint: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParserVersion):
            return NotImplemented
        return (self.spec, self.fingerprint) == (other.spec, other.fingerprint)

    def __hash__(self) -> int:
        return hash((self.spec, self.fingerprint))


RAW = ParserVersion("raw")


def _template_object(template: Template | None) -> dict[str, str] | None:
    if template is None:
        return None
    return {"text": template.text, "syntax": template.syntax}


def _template_from(stored: dict[str, Any] | None, name: str) -> Template | None:
    return None if stored is None else Template(stored["text"], stored["syntax"], name)


class ItemInput(Struct, frozen=True):
    """An item as the user gave it (`given`), and its parts.

    `messages` or, of a request line for another endpoint than chat, `prompt` is set (the members of
    the request that hold its prompt, ready to send), or the two sets of variables are. `endpoint`
    is the one that the item itself names.
    """

    given: Mapping[str, Any]
    id: str | None = None
    metadata: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] | None = None
    prompt: Mapping[str, Any] | None = None
    endpoint: str | None = None
    system_variables: Mapping[str, Any] = field(default_factory=dict)
    user_variables: Mapping[str, Any] = field(default_factory=dict)


class PoolItem(Struct, frozen=True):
    """One item read from a pool; `where` is `file:line`, for messages. `text` is the item as JSON,
    just as it came; "" where it did not come as JSON."""

    input: ItemInput
    where: str
    text: str = ""


class NewItem(Struct, frozen=True, gc=False):
    """One item to enqueue. `key` is its identity: items with equal keys are copies of equal content
    or, when `custom_id` is set, the one item with that id."""

    key: bytes
    input_json: str
    custom_id: str | None
    where: str


class Item(Struct, frozen=True):
    """An item as claimed. `epoch` is the fencing token: what this claim writes counts only while
    the row still has the same epoch. `tries` are those used up so far. `sample` is
    the number of the answer among those wanted of an item, from 1; None for an ordinary item.
    `answer_seq` names the attempt whose answer, `answer_text`, is durable but not parsed yet, and
    `parser_id` the parser that reads it: the experiment's, or what the worker has in its place.
    `reserved_tokens` is the estimate of what its call uses, where tokens are limited. `probe`: it
    was claimed from elsewhere in the pool, to see whether all items fail as the first ones did.
    `server` is the one for which it was claimed, a hash of its URL.

    `links` are the rows that it was made of, from its chain's first one down to its parent; of a
    gathering step's row `gathered` are those that it gathers, each with what it was made of, and
    `gathering` is the row at the root of those that it will be gathered with. `runs_code`: the
    user's function ends it, without a call. `parent_id` is the row that it was made of, the root of
    those that it gathers; None: it is the user's. `plan_id` is that of its chain, if it has steps:
    what follows it by another one does not count."""

    id: int
    epoch: int
    experiment_id: int
    recipe_id: int
    custom_id: str | None
    input_json: str
    tries: int = 0
    parse_failures: int = 0
    sample: int | None = None
    answer_seq: int | None = None
    answer_text: str | None = None
    parser_id: int | None = None
    server: str = ""
    parent_id: int | None = None
    gathering: int | None = None
    runs_code: bool = False
    plan_id: int | None = None
    reserved_tokens: int = 0
    probe: bool = False
    links: "tuple[Link, ...]" = ()
    gathered: "tuple[tuple[Link, ...], ...]" = ()


class Usage(Struct, frozen=True):
    """Tokens as the server counted them, and at which of its service tiers; None where it did not
    say. Prompt tokens include cached tokens, completion tokens include reasoning tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    service_tier: str | None = None


class Reply(Struct, frozen=True):
    """What one call brought back over the wire, before it is judged.

    Either `status` and `body` are set, or `fault` and `fault_message` say why there is no whole
    answer (a status may be there too: the body was cut off). `sent` is False when no connection
    could be made; `reused` is True when the call went out on a kept-alive connection and nothing
    came back on it.
    """

    started_at: int
    latency_ms: int
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    fault: Reason | None = None
    fault_message: str = ""
    sent: bool = True
    reused: bool = False


class Answer(Struct, frozen=True):
    """A usable answer. `rest` is the body as JSON from which what is stored on its own was taken:
    the `text`, and the `vector` of an embedding, as JSON. `slip`: why it is not what was asked for,
    where the server says so; then no parser needs to see it."""

    text: str
    rest: str
    finish_reason: str | None
    model: str | None
    usage: Usage
    vector: str | None = None
    slip: str | None = None


class Trouble(Enum):
    """What went wrong that need not be the item's fault."""

    UNREACHABLE = "no connection to the server could be made"
    UNAVAILABLE = "the server, or the gateway before it, said that it is not available"
    TOO_LATE = "the gateway before the server waited in vain for its answer"
    NOWHERE = "what answered is not what has answered before"
    STALE_CONNECTION = "a kept-alive connection had been closed"
    ACCOUNT = "the key, the credit or the model was refused, while others were answered"
    PARAMETER_LEFT_OUT = "a parameter was rejected that the next request leaves out"


class Failure(Struct, frozen=True):
    """An unusable reply. `halt` says why no request at all would work; then the item is not to
    blame, unless others are answered. It `is_sure` when no item could be meant by it.
    `retry_after_s` is how long the server asks to wait. The answer `has_begun` when the server may
    have written some of it before it failed."""

    reason: Reason
    message: str
    retry_after_s: float | None = None
    halt: str | None = None
    is_sure: bool = True
    trouble: Trouble | None = None
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    has_begun: bool = False


class Attempt(Struct, frozen=True):
    """One call as it is kept for good: all of it, whatever came of it.

    answered: `response` is the answer's text, `vector` its embedding, and `body` the rest of what
              the server sent (`Answer.rest`).
    failed:   `reason` says why; `body` is what the server sent, if anything.
    unknown:  neither: sent, but the worker died or was stopped before an answer came.
    """

    finished_at: int
    latency_ms: int | None = None
    reason: Reason | None = None
    error: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    response: str | None = None
    vector: str | None = None
    body: str | None = None
    may_be_charged: bool = False  # sent, and failed before we saw what it used; not stored
    server: str = ""  # the key of the one that was asked; "": the one that its item was claimed for

    @property
    def outcome(self) -> Literal["answered", "failed", "unknown"]:
        if self.response is not None:
            return "answered"
        return "unknown" if self.reason is None else "failed"


class Done(Struct, frozen=True):
    """The item is done. `parsed_json` is None when parsed is the answer itself, its text or its
    vector (parser `raw`). `followed`: what is made of it, in an experiment with steps."""

    parsed_json: str | None = None
    followed: "Followed | None" = None


class Retry(Struct, frozen=True):
    """Back to pending, to be tried from `available_at` on (epoch ms; None: at once). `charged`:
    this uses up one of the item's tries. `error`: why the parser could not use the answer."""

    available_at: int | None
    charged: bool
    parse_failed: bool = False
    error: str | None = None


class Fail(Struct, frozen=True):
    """The item is given up."""

    reason: Reason
    error: str


class Suspect(Struct, frozen=True):
    """Its call failed, and nobody whose recipe it shares has been answered yet, or since: whose
    fault it was is told by what happens to the others. `alike` is by what it is compared with them,
    and `message` what went wrong. `own` is what becomes of it if the fault was its own; `halt` says
    why no request would work, if the reply may mean that."""

    alike: str
    message: str
    own: "Fail | Retry"
    halt: str | None = None


class Release(Struct, frozen=True):
    """Back to pending as if it had never been claimed; the attempt, if any, is kept."""


class KeepAnswer(Struct, frozen=True):
    """The answer becomes durable, and the item stays running: its parser comes next."""


class ParseLater(Struct, frozen=True):
    """The answer becomes durable, and the item pending: who claims it next is to parse it."""


Decision = Done | Retry | Fail | Suspect | Release | KeepAnswer | ParseLater


class Outcome(Struct, frozen=True):
    """What became of a claim: written by the next exchange. `attempts` are the calls that were made
    for it: none, one, or two where a second call was begun. The first of them is the one that
    counts; the other may have been abandoned, with its answer unknown. `second_call_unsent`: one
    was begun, but never went out."""

    item: Item
    attempts: tuple[Attempt, ...]
    decision: Decision
    second_call_unsent: bool = False

    @property
    def attempt(self) -> Attempt | None:
        """The one that counts."""
        return self.attempts[0] if self.attempts else None
