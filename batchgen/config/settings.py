"""The table of all settings is the reference: each leaf of it states its default, its kind and what
it means."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchgen.config.kinds import (
    API_KEY,
    BASE_URL,
    BATCH_MB,
    BATCH_REQUESTS,
    BOOL,
    CONCURRENCY,
    DATABASE,
    ENDPOINT,
    EXPERIMENT,
    NOT_SETTINGS,
    PARAMETERS,
    PARSER,
    PATH,
    PATH_OR_NULL,
    POSITIVE,
    PROVIDER,
    RATE_LIMIT,
    SECONDS,
    TEXT,
    TEXT_OR_NULL,
    Kind,
    ValueContext,
    or_null,
    shown_key,
)
from batchgen.config.price import PRICE
from batchgen.config.sent import HEADERS, QUERY
from batchgen.config.servers import SERVERS
from batchgen.config.values import Config
from batchgen.errors import ConfigError

if TYPE_CHECKING:
    from batchgen.config.steps import StepConfig

KeyPath = tuple[str, ...]

ENVIRONMENT_PREFIX = "BATCHGEN_"


class Leaf(Struct, frozen=True):
    """One setting. A relative path in `default` starts from the config file's directory; with
    `if_exists` that default holds only while the file is there."""

    path: KeyPath
    kind: Kind
    default: Any
    help: str
    if_exists: bool = False

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + "_".join(self.path).upper()


def _check_steps(value: Any, context: ValueContext) -> "tuple[StepConfig, ...]":
    if value is None or value in ([], ()):
        return ()
    from batchgen.config.step_list import steps_of  # here: most configs have none

    return steps_of(value, context)


def _check_result(value: Any, context: ValueContext) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value or ()
    if not isinstance(names, (list, tuple)):
        raise ValueError
    return tuple(TEXT.check(name, context) for name in names)


_SEARCHED = {  # defaults that hold only while the file is there
    "system_prompt_path": Path("prompts/system_prompts/default.txt"),
    "user_prompt_path": Path("prompts/user_prompts/default.txt"),
}

_TABLE = {
    "model.provider": (
        PROVIDER,
        "any OpenAI-compatible server; `mistral`: one that has Mistral's API for batches",
    ),
    "model.api_key": (
        API_KEY,
        "the key, `${VAR}` or `$VAR`; missing: the variable `OPENAI_API_KEY`",
    ),
    "model.base_url": (BASE_URL, "the server, without `/chat/completions`; may contain `${VAR}`"),
    "model.model": (TEXT, "the model's name, as the server knows it"),
    "model.endpoint": (
        ENDPOINT,
        "what is asked: `chat`, `responses`, `completions` or `embeddings`; "
        "see [endpoints](endpoints.md)",
    ),
    "model.headers": (
        HEADERS,
        "sent with each request, `{NAME: VALUE}`; with `Authorization` or `api-key` among them "
        "`api_key` is not sent; values may contain `${VAR}` and are secret; null: not sent",
    ),
    "model.query": (
        QUERY,
        "added to the URL of each request, such as Azure's `{api-version: 2024-10-21}`; values as "
        "in `headers`",
    ),
    "model.stream": (
        BOOL,
        "ask for each answer as a stream, and put it together: what is stored is the same as "
        "without; `work.timeout_s` counts from the newest piece",
    ),
    "model.rate_limit": (
        RATE_LIMIT,
        "requests per minute to a server, of all workers together; null or 0: no limit",
    ),
    "model.token_limit": (
        RATE_LIMIT,
        "tokens per minute at a server, in and out, of all workers together; null or 0: no limit",
    ),
    "model.price": (
        PRICE,
        "US dollars for a million tokens, where the public prices do not hold: "
        "`{input_usd_per_mtok, output_usd_per_mtok, cached_input_usd_per_mtok, batch}`; `batch` is "
        "the same of provider batches, half by default; see [prices](running.md#prices)",
    ),
    "model.servers": (
        SERVERS,
        "several servers or keys for one run, in place of `base_url` and `api_key`: a list of "
        "`{base_url, api_key, concurrency, headers, query, rate_limit, token_limit, price}`; see "
        "[several servers](running.md#several-servers)",
    ),
    **{f"model.{name}": (kind, "passed on; null: not sent") for name, kind in PARAMETERS.items()},
    "prompts.system_prompt_path": (PATH_OR_NULL, 'system template; null or `""`: none'),
    "prompts.user_prompt_path": (PATH_OR_NULL, 'user template; null or `""`: none'),
    "prompts.system_prompt": (TEXT_OR_NULL, 'the system template itself; `""`: none'),
    "prompts.user_prompt": (TEXT_OR_NULL, 'the user template itself; `""`: none'),
    "output_data.output_dir": (PATH, "directory of the exports"),
    "output_data.experiment_name": (EXPERIMENT, "the experiment, and its file's name"),
    "output_data.need_time_stamp": (BOOL, "put the experiment's creation time in the file's name"),
    "database": (
        DATABASE,
        "the work database: a file, or `postgresql://USER@HOST/NAME` of a PostgreSQL server; "
        "may contain `${VAR}`",
    ),
    "parser": (PARSER, "what makes `parsed` out of an answer; see [parsers](parsers.md)"),
    "structured_output": (BOOL, "ask the server for answers that fit the parser's schema"),
    "steps": (
        Kind("a list of mappings", _check_steps),
        "several calls for each item, in place of `prompts` and `parser`; see [steps](#steps)",
    ),
    "result": (
        Kind("a name or a list of them", _check_result),
        "whose value is the `parsed` of a line of the export: that of the first of these steps "
        "which is there; by default the last step",
    ),
    "work.concurrency": (
        CONCURRENCY,
        "calls in flight at once, per worker; by default, with `model.servers`, the sum of theirs, "
        "20 for each that has none",
    ),
    "work.adaptive": (BOOL, "find out how many requests the server takes, and send no more"),
    "work.timeout_s": (
        SECONDS,
        "seconds until a call without an answer is given up; of a stream, without a piece of it",
    ),
    "work.max_attempts": (POSITIVE, "tries per item that may fail before the item does"),
    "work.parse_attempts": (POSITIVE, "answers per item that may fail to parse"),
    "work.retry_wait_s": (
        SECONDS,
        "seconds before the first retry (a tenth of it after a 429 that only some calls meet); "
        "each later wait is twice as long",
    ),
    "work.parse_feedback": (BOOL, "say, when asking again, what was wrong with the last answer"),
    "work.parse_timeout_s": (SECONDS, "seconds that a parser may take over one answer"),
    "work.stall_s": (SECONDS, "seconds without any success until a worker halts"),
    "work.grace_s": (SECONDS, "seconds that a stopped worker waits for its calls"),
    "work.lease_s": (SECONDS, "seconds until a silent worker's items go to another"),
    "work.patience_s": (
        SECONDS,
        "seconds that a worker waits for a PostgreSQL server that went away, with its answers in "
        "memory",
    ),
    "batch.max_requests": (BATCH_REQUESTS, "requests of a provider batch, at most"),
    "batch.max_mb": (BATCH_MB, "million bytes of a provider batch, at most"),
    "batch.max_open": (POSITIVE, "provider batches at the provider at a time"),
    "batch.max_enqueued_tokens": (
        or_null(POSITIVE),
        "tokens in the prompts of all provider batches at the provider, as your account's page "
        "has it; null: found out by what is refused",
    ),
    "batch.completion_window": (TEXT, "how long the provider may take: `24h`, at some also others"),
    "batch.poll_s": (SECONDS, "seconds between two looks at what the provider has done"),
    "batch.probe": (
        BOOL,
        "ask one row online before the first provider batch of a recipe, so that a wrong key or "
        "parameter is seen in a second, not tomorrow",
    ),
    "batch.delete_files": (BOOL, "delete the files at the provider once all is in the database"),
    "log_dir": (PATH, "directory of the log files"),
}


def _leaf(name: str, kind: Kind, text: str) -> Leaf:
    path = tuple(name.split("."))
    default: Any = Config(directory=Path())
    for part in path:
        default = getattr(default, part, None)
    searched = _SEARCHED.get(path[-1])
    return Leaf(path, kind, searched or default, text, if_exists=searched is not None)


LEAVES = {leaf.path: leaf for leaf in (_leaf(name, *row) for name, row in _TABLE.items())}
SECTIONS = tuple(dict.fromkeys(path[0] for path in LEAVES if len(path) > 1))
LEAF_PATHS = {path[-1]: path for path in LEAVES}


def leaf_table() -> tuple[Leaf, ...]:
    """Every setting there is, in the order of the reference."""
    return tuple(LEAVES.values())


def leaf_path(name: str) -> KeyPath:
    """Where the setting called `name` is: `temperature` -> model.temperature.

    Raises ConfigError with the nearest name that exists.
    """
    if name not in LEAF_PATHS:
        raise ConfigError(unknown_key((name,), shown_key(name)))
    return LEAF_PATHS[name]


def unknown_key(path: tuple[Any, ...], label: str) -> str:
    """The message about a key that does not exist, or stands in the wrong section."""
    from difflib import get_close_matches  # here: nearly every config has none

    everything = {name: name for name in SECTIONS} | {
        name: ".".join(where) for name, where in LEAF_PATHS.items()
    }
    name = str(path[-1])[:60]
    if name in NOT_SETTINGS:
        return f"{label}: cannot be set; batchgen decides it for every request"
    siblings = [one[-1] for one in LEAVES if len(path) > 1 and one[:-1] == path[:-1]]
    near = name if name in everything else None
    near = near or next(iter(get_close_matches(name.lower(), siblings, 1)), None)
    nearest = everything[near or get_close_matches(name.lower(), everything, 1, 0)[0]]
    hint = " A parameter that only your server knows goes under model.extra_body"
    own = path[0] == "model" and nearest.startswith("model.")
    return f"{label}: unknown key; did you mean {nearest}?{hint if own else ''}"
