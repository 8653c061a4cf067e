"""All settings: the values and the table are the reference. Each leaf of the table states its
default, its kind and what it means.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import replace

from batchgen.config.kinds import (
    API_KEY,
    BASE_URL,
    BOOL,
    CONCURRENCY,
    ENDPOINT,
    EXPERIMENT,
    NOT_SETTINGS,
    PARAMETERS,
    PARSER,
    PATH,
    PATH_OR_NULL,
    POSITIVE,
    PRICE,
    PROVIDER,
    RATE_LIMIT,
    SECONDS,
    TEXT,
    TEXT_OR_NULL,
    Kind,
    ValueContext,
    file_of_parser,
    shown_key,
)
from batchgen.config.price import Price
from batchgen.config.sent import HEADERS, QUERY, SentValue, SentValues, gives_key, merged
from batchgen.config.servers import SERVERS, ServerConfig, shown_without_secrets
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


class ModelConfig(Struct, frozen=True, kw_only=True):
    """The server and what is asked of it. `params` are the parameters of requests that were set;
    one that is null is not sent. `base_url` is without a query, which is part of `query`.
    `api_key_variable` is the environment variable for the key; `url_variables` are those that
    `base_url` is made with, and what they are. Where there are several `servers`, each has its own
    of this (`of_each_server`): then `concurrency` bounds its calls, and `place` is where it is set.
    """

    provider: str = "openai"
    api_key: str | None = None
    base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-4o-2024-11-20"
    endpoint: str = "chat"
    headers: SentValues = field(default_factory=dict)
    query: SentValues = field(default_factory=dict)
    stream: bool = False
    rate_limit: int | None = None
    token_limit: int | None = None
    price: Price | None = None
    servers: tuple[ServerConfig, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    api_key_variable: str = "OPENAI_API_KEY"
    url_variables: Mapping[str, str] = field(default_factory=dict)
    concurrency: int | None = None
    place: str = "model"

    def __repr__(self) -> str:
        return shown_without_secrets(self)

    def of_each_server(self) -> "tuple[ModelConfig, ...]":
        """The section as it is for each of the `servers`, or as it is for the only one. What a
        server has of its own counts; headers and query are added up."""
        return tuple(map(self._of_server, range(len(self.servers)))) or (self,)

    def _of_server(self, number: int) -> "ModelConfig":
        server = self.servers[number]
        rpm, tpm = server.rate_limit, server.token_limit
        return replace(
            self, servers=(), place=f"{self.place}.servers[{number}]",
            base_url=server.base_url, url_variables=server.url_variables,
            api_key=server.api_key, api_key_variable=server.api_key_variable,
            headers=merged(self.headers, server.headers), query=merged(self.query, server.query),
            concurrency=server.concurrency, price=server.price or self.price,
            rate_limit=self.rate_limit if rpm is None else rpm or None,
            token_limit=self.token_limit if tpm is None else tpm or None,
        )  # fmt: skip

    @property
    def sends_api_key(self) -> bool:
        """Whether `api_key` is sent: there is one, and no header takes its place."""
        return bool(self.api_key) and not gives_key(self.headers)

    @property
    def shown_base_url(self) -> str:
        """`base_url` as a message may name it: with its variables' names, as in the config."""
        shown = self.base_url
        for name, value in sorted(self.url_variables.items(), key=lambda one: -len(one[1])):
            shown = shown.replace(value, f"${{{name}}}")
        return shown

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `json.dumps` takes them. They have the key and the other secrets: for
        a private pipe alone."""
        values: dict[str, Any] = to_builtins(self)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """What `to_json` was called on."""
        servers = tuple(ServerConfig(**_from_json(one)) for one in values["servers"])
        return cls(**_from_json(values) | {"servers": servers})


def _from_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """With those values that JSON does not have."""
    sent = {
        name: {one: value and SentValue(**value) for one, value in values[name].items()}
        for name in ("headers", "query")
    }
    return {**values, **sent, "price": values["price"] and Price.from_json(values["price"])}


class PromptsConfig(Struct, frozen=True, kw_only=True):
    """The template files; None: no such template. A prompt that is given as text stands in place of
    the file; one that is empty means that there is none."""

    system_prompt_path: Path | None = None
    user_prompt_path: Path | None = None
    system_prompt: str | None = None
    user_prompt: str | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Those of the templates that are files, by the setting that names them."""
        paths = {
            "system_prompt_path": self.system_prompt is None and self.system_prompt_path,
            "user_prompt_path": self.user_prompt is None and self.user_prompt_path,
        }
        return {name: path for name, path in paths.items() if path}


class OutputConfig(Struct, frozen=True, kw_only=True):
    """Where the export goes, and the experiment's name."""

    output_dir: Path = Path("output")
    experiment_name: str = "default"
    need_time_stamp: bool = False


class WorkConfig(Struct, frozen=True, kw_only=True):
    """How workers work. Nothing here changes the first request for an item; with `parse_feedback` a
    second request contains the first answer."""

    concurrency: int = 20
    adaptive: bool = False
    timeout_s: float = 600.0
    max_attempts: int = 5
    parse_attempts: int = 1
    retry_wait_s: float = 1.0
    parse_feedback: bool = False
    parse_timeout_s: float = 30.0
    stall_s: float = 1800.0
    grace_s: float = 30.0
    lease_s: float = 60.0


class Config(Struct, frozen=True, kw_only=True):
    """All settings, checked; each path in it includes the directory that it starts from.

    `directory` is where the file's relative paths start: the file's own directory, or the current
    one when there is no file (`file`). `names_parser`: the parser is no default.
    """

    @property
    def own_files(self) -> tuple[Path, ...]:
        """The files of the user's that the settings are from and name: nothing may be written over
        one of them."""
        prompts = self.prompts.system_prompt_path, self.prompts.user_prompt_path
        of_steps = (one.path for step in self.steps for one in step.prompts.values())
        specs = (self.parser, *(spec for step in self.steps for spec in step.specs))
        files = (self.directory / file for spec in specs if (file := file_of_parser(spec)))
        return tuple(path for path in (self.file, *prompts, *of_steps, *files) if path)

    model: ModelConfig = field(default_factory=ModelConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    output_data: OutputConfig = field(default_factory=OutputConfig)
    database: Path = Path("batchgen.db")
    parser: str = "raw"
    names_parser: bool = False
    structured_output: bool = False
    steps: "tuple[StepConfig, ...]" = ()
    steps_place: str = "steps"  # where they are set, for messages
    result: tuple[str, ...] = ()
    work: WorkConfig = field(default_factory=WorkConfig)
    log_dir: Path = Path("logs")
    directory: Path
    file: Path | None = None

    def check_prompt_files(self) -> None:
        """Raises ConfigError, with the key and the whole path, for a template that isn't a file."""
        files = {f"prompts.{name}": path for name, path in self.prompts.files.items()}
        if self.steps:
            from batchgen.config.steps import prompt_files  # here: most configs have none

            files = prompt_files(self)
        for name, path in files.items():
            if not path.exists() or path.is_dir():
                problem = "is a directory" if path.is_dir() else "no such file"
                raise ConfigError(f"{name}: {problem}: {path}")


OF_SERVERS = ("base_url", "api_key", "servers", "headers", "query", "rate_limit", "token_limit")
"""What of the section `model` is a server's."""


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
    "model.provider": (PROVIDER, "any OpenAI-compatible server"),
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
        "`{input_usd_per_mtok, output_usd_per_mtok, cached_input_usd_per_mtok}`",
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
    "database": (PATH, "the work database"),
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
        "seconds before the first retry; each later wait is twice as long",
    ),
    "work.parse_feedback": (BOOL, "say, when asking again, what was wrong with the last answer"),
    "work.parse_timeout_s": (SECONDS, "seconds that a parser may take over one answer"),
    "work.stall_s": (SECONDS, "seconds without any success until a worker halts"),
    "work.grace_s": (SECONDS, "seconds that a stopped worker waits for its calls"),
    "work.lease_s": (SECONDS, "seconds until a silent worker's items go to another"),
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
