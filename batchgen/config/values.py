"""All settings as values, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import replace

from batchgen.config.kinds import file_of_parser
from batchgen.config.price import Price
from batchgen.config.sent import SentValue, SentValues, gives_key, merged
from batchgen.config.servers import ServerConfig, shown_without_secrets
from batchgen.errors import ConfigError

if TYPE_CHECKING:
    from batchgen.config.steps import StepConfig
    from batchgen.database_address import DatabaseAddress

OF_SERVERS = ("base_url", "api_key", "servers", "headers", "query", "rate_limit", "token_limit")
"""What of the section `model` is a server's."""


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
    lease_s: float = 30.0
    patience_s: float = 600.0


class BatchConfig(Struct, frozen=True, kw_only=True):
    """How `work --batch` sends rows: a provider batch has at most `max_requests` and `max_mb`
    million bytes, and `max_open` of them are at the provider at a time, with no more than
    `max_enqueued_tokens` in their prompts (None: what the provider refuses tells). With `probe` one
    row of a recipe is asked online before the first batch of it."""

    max_requests: int = 10_000
    max_mb: int = 90
    max_open: int = 10
    max_enqueued_tokens: int | None = None
    completion_window: str = "24h"
    poll_s: float = 60.0
    probe: bool = True
    delete_files: bool = True


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
        return tuple(path for path in (self.file, *prompts, *of_steps, *self.parser_files) if path)

    @property
    def parser_files(self) -> tuple[Path, ...]:
        """Those of the user's that a worker loads: parsers, schemas, and functions of steps."""
        specs = (self.parser, *(spec for step in self.steps for spec in step.specs))
        return tuple(self.directory / file for spec in specs if (file := file_of_parser(spec)))

    model: ModelConfig = field(default_factory=ModelConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    output_data: OutputConfig = field(default_factory=OutputConfig)
    database: "DatabaseAddress" = Path("batchgen.db")
    parser: str = "raw"
    names_parser: bool = False
    structured_output: bool = False
    steps: "tuple[StepConfig, ...]" = ()
    steps_place: str = "steps"  # where they are set, for messages
    result: tuple[str, ...] = ()
    work: WorkConfig = field(default_factory=WorkConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
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
                raise ConfigError(f"{name}: {problem}: {path}{_if_text(name, path)}")


def _if_text(name: str, path: Path) -> str:
    """What to do if it is no path but the template itself."""
    if not any(char in path.name for char in " {\n"):
        return ""
    how = "{text: ...}" if " (step " in name else name.removesuffix("_path")
    return f" (a template itself is written as {how})"
