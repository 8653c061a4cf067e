"""Settings: what there is to set, and where a value comes from.

The dataclasses are the reference: each leaf states its default, its kind and what it means. A
value comes from the last of defaults < file < environment < overrides that has it, and only the
value that wins is checked. An error is one line: the file or the variable, the key's path, what is
wrong. Neither the API key nor a base_url, in which somebody may have hidden one, is ever quoted.
"""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchgen.errors import ConfigError
from batchgen.items import dump_json

if TYPE_CHECKING:
    import yaml

KeyPath = tuple[str, ...]

_MAX_FILE_BYTES = 1_000_000  # PyYAML reads about 0.1 MB a second
_MAX_NAME_BYTES = 200  # a file name holds 255, and a time stamp and a suffix follow
_MAX_SECONDS = 100_000_000  # in milliseconds this still fits wherever times are kept
_PREFIX = "BATCHGEN_"
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a value may refer to: variables, and the directory that a relative path starts from."""

    env: Mapping[str, str]
    directory: Path


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be.

    `check` returns the value as it is kept. It raises ValueError with what is wrong, or an empty
    one when that is simply "must be `phrase`". The environment gives a `text` kind its value as
    it is, any other kind as YAML.
    """

    phrase: str
    check: Callable[[Any, Scope], Any]
    text: bool = False


@dataclass(frozen=True, slots=True)
class Leaf:
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
        return _PREFIX + "_".join(self.path).upper()


def _show(value: Any) -> str:
    """`value` in a message, short and on one line."""
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, (list, tuple, Mapping)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a huge number"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)[:60]


def _check_text(value: Any, _: Scope) -> str:
    if not isinstance(value, str):
        hint = "" if value is None or isinstance(value, (list, Mapping)) else "; put it in quotes"
        raise ValueError(f"must be text, not {_show(value)}{hint}")
    if not value.strip():
        raise ValueError("must not be empty")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("must be valid Unicode")
    return value


def _kind(
    phrase: str, accepts: Callable[[Any], bool], keep: Callable[[Any], Any] = lambda value: value
) -> Kind:
    def check(value: Any, _: Scope) -> Any:
        if not accepts(value):
            raise ValueError
        return keep(value)

    return Kind(phrase, check)


def _integer(phrase: str, low: int = -(2**63), high: int = 2**63 - 1) -> Kind:
    return _kind(phrase, lambda value: type(value) is int and low <= value <= high)


def _number(phrase: str, above: float = -1e300, most: float = 1e300) -> Kind:
    """Finite, and kept as a float, so that 1 and 1.0 make the same recipe."""
    return _kind(phrase, lambda v: type(v) in (int, float) and above < v <= most, float)


def _json(phrase: str, *types: type) -> Kind:
    return _kind(phrase, lambda value: isinstance(value, types), _as_json)


def _as_json(value: Any) -> Any:
    """`value` as JSON holds it: keys are text, a tuple is a list."""
    try:
        return json.loads(dump_json(value))
    except (TypeError, ValueError) as exc:
        raise ValueError(f"cannot be sent as JSON: {exc}") from None


def _is_stop(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, (list, tuple)) and all(isinstance(text, str) for text in texts)


def _or_null(kind: Kind) -> Kind:
    def check(value: Any, scope: Scope) -> Any:
        return None if value is None else kind.check(value, scope)

    return Kind(f"{kind.phrase} or null", check, kind.text)


def _check_path(value: Any, scope: Scope) -> Path:
    text = _check_text(os.fspath(value) if isinstance(value, os.PathLike) else value, scope)
    if "\0" in text:
        raise ValueError("must not contain NUL")
    try:
        return scope.directory / Path(text).expanduser()
    except RuntimeError:
        raise ValueError("starts with a home directory that is not known") from None


def _check_path_or_none(value: Any, scope: Scope) -> Path | None:
    return None if value is None or value == "" else _check_path(value, scope)


def _check_provider(value: Any, _: Scope) -> str:
    if value != "openai":
        raise ValueError(
            'must be "openai", which means any OpenAI-compatible server: set model.base_url'
        )
    return "openai"


def _check_api_key(value: Any, scope: Scope) -> str | None:
    if not isinstance(value, str | None):
        raise ValueError("must be text")
    key = (value or "").strip()
    if named := _VARIABLE.fullmatch(key):
        key = scope.env.get(named[1] or named[2], "").strip()
    elif key.startswith("$"):
        raise ValueError("must be the key itself, ${NAME} or $NAME")
    key = key or scope.env.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ValueError("has characters that a key cannot have (spaces, control, not ASCII)")
    return key or None


def _check_base_url(value: Any, scope: Scope) -> str:
    def expand(named: re.Match[str]) -> str:
        if not (found := scope.env.get(named[1])):
            raise ValueError(f"the environment variable {named[1]} is not set")
        return found

    if not isinstance(value, str):
        raise ValueError("must be text")
    url = re.sub(r"\$\{(\w+)\}", expand, value.strip()).rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # its text quotes the URL
        usable = False
    if not usable or re.search(r"[^!-~]", url):
        raise ValueError("must be http://host... or https://host...")
    if "@" in parts.netloc:
        raise ValueError("must not have a user or password; the key belongs in model.api_key")
    if "?" in url or "#" in url:
        raise ValueError("must not have a part after ? or #")
    if parts.path.endswith("/chat/completions"):
        raise ValueError("leave off /chat/completions, it is added to every request")
    return url


def _check_experiment(value: Any, scope: Scope) -> str:
    name = _check_text(value, scope)
    if re.search(r"[/\\]", name) or _CONTROL.search(name):
        raise ValueError(r"must not contain / or \ or control characters")
    if name in (".", "..") or name.startswith("-"):
        raise ValueError('must not be "." or ".." or start with "-"')
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ValueError(f"must not be longer than {_MAX_NAME_BYTES} bytes in UTF-8")
    return name


_TEXT = Kind("text", _check_text, text=True)
_BOOL = _kind("true or false", lambda value: isinstance(value, bool))
_PATH = Kind("a path", _check_path, text=True)
_PATH_OR_NULL = Kind("a path or null", _check_path_or_none, text=True)
_PROVIDER = Kind('"openai"', _check_provider, text=True)
_API_KEY = Kind("text or null", _check_api_key, text=True)
_BASE_URL = Kind("a URL", _check_base_url, text=True)
_EXPERIMENT = Kind("text", _check_experiment, text=True)
_CONCURRENCY = _integer("an integer from 1 to 10000", 1, 10_000)
_COUNT = _integer("an integer >= 0", 0)
_RATE_LIMIT = Kind(
    "an integer >= 0 or null", lambda value, scope: _or_null(_COUNT).check(value, scope) or None
)
_POSITIVE = _integer("an integer >= 1", 1)
_SECONDS = _number(f"a number > 0 and <= {_MAX_SECONDS}", 0, _MAX_SECONDS)
_MAPPING = _json("a mapping", dict)
_LIST = _json("a list", list, tuple)
_CHOICE = _json("text or a mapping", str, dict)

_CHAT_KINDS: Mapping[Kind, tuple[str, ...]] = {
    _POSITIVE: ("max_completion_tokens", "max_tokens", "n"),
    _COUNT: ("top_logprobs",),
    _integer("an integer"): ("seed",),
    _number("a finite number"): ("frequency_penalty", "presence_penalty", "temperature", "top_p"),
    _BOOL: ("logprobs", "parallel_tool_calls", "store"),
    _TEXT: (
        *("prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "safety_identifier"),
        *("service_tier", "user", "verbosity"),
    ),
    _kind("text or a list of texts", _is_stop, _as_json): ("stop",),
    _CHOICE: ("function_call", "tool_choice"),
    _LIST: ("functions", "modalities", "tools"),
    _MAPPING: (
        *("audio", "extra_body", "logit_bias", "metadata", "moderation", "prediction"),
        *("prompt_cache_options", "response_format", "web_search_options"),
    ),
}
_PARAMETERS = {name: _or_null(kind) for kind, names in _CHAT_KINDS.items() for name in names}

_NOT_SETTINGS = ("messages", "stream", "stream_options")

CHAT_PARAMETERS = frozenset(_PARAMETERS)
"""Every parameter of a chat completion that a config may set, and extra_body for all others."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The server and what is asked of it. `params` are the chat-completion parameters that were
    set; null means not sent."""

    provider: str = "openai"
    api_key: str | None = field(default=None, repr=False)
    base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-4o-2024-11-20"
    rate_limit: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """The template files; None: no such template."""

    system_prompt_path: Path | None = None
    user_prompt_path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where the export goes, and the experiment's name."""

    output_dir: Path = Path("output")
    experiment_name: str = "default"
    need_time_stamp: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkConfig:
    """How a worker goes about it. Nothing here changes an answer."""

    concurrency: int = 20
    timeout_s: float = 600.0
    max_attempts: int = 5
    parse_attempts: int = 1
    parse_timeout_s: float = 30.0
    stall_s: float = 1800.0
    grace_s: float = 30.0
    lease_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings, checked; the paths in it are whole.

    `directory` is where the file's relative paths start: the file's own directory, or the current
    one when there is no file.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    output_data: OutputConfig = field(default_factory=OutputConfig)
    database: Path = Path("batchgen.db")
    parser: str = "raw"
    work: WorkConfig = field(default_factory=WorkConfig)
    log_dir: Path = Path("logs")
    directory: Path

    def check_prompt_files(self) -> None:
        """Raises ConfigError, with the key and the whole path, for a template that isn't a file."""
        for name, path in vars(self.prompts).items():
            if path is not None and (not path.exists() or path.is_dir()):
                problem = "is a directory" if path.is_dir() else "no such file"
                raise ConfigError(f"prompts.{name}: {problem}: {path}")


_SEARCHED = {  # defaults that hold only while the file is there
    "system_prompt_path": Path("prompts/system_prompts/default.txt"),
    "user_prompt_path": Path("prompts/user_prompts/default.txt"),
}

_TABLE = {
    "model.provider": (_PROVIDER, "any OpenAI-compatible server"),
    "model.api_key": (_API_KEY, "the key, ${VAR} or $VAR; missing: the variable OPENAI_API_KEY"),
    "model.base_url": (_BASE_URL, "the server, without /chat/completions; may contain ${VAR}"),
    "model.model": (_TEXT, "the model's name, as the server knows it"),
    "model.rate_limit": (_RATE_LIMIT, "requests per minute; null or 0: no limit"),
    **{f"model.{name}": (kind, "passed on; null: not sent") for name, kind in _PARAMETERS.items()},
    "prompts.system_prompt_path": (_PATH_OR_NULL, 'system template; null or "": none'),
    "prompts.user_prompt_path": (_PATH_OR_NULL, 'user template; null or "": none'),
    "output_data.output_dir": (_PATH, "directory of the exports"),
    "output_data.experiment_name": (_EXPERIMENT, "the experiment, and its file's name"),
    "output_data.need_time_stamp": (_BOOL, "put the experiment's creation time in the file's name"),
    "database": (_PATH, "the work database"),
    "parser": (_TEXT, "what makes parsed out of an answer; see Parsers"),
    "work.concurrency": (_CONCURRENCY, "calls in flight at once, per worker"),
    "work.timeout_s": (_SECONDS, "seconds until a call without an answer is given up"),
    "work.max_attempts": (_POSITIVE, "calls per item that may fail before the item does"),
    "work.parse_attempts": (_POSITIVE, "answers per item that may fail to parse"),
    "work.parse_timeout_s": (_SECONDS, "seconds that a parser may take over one answer"),
    "work.stall_s": (_SECONDS, "seconds without any success until a worker halts"),
    "work.grace_s": (_SECONDS, "seconds that a stopped worker waits for its calls"),
    "work.lease_s": (_SECONDS, "seconds until a silent worker's items go to another"),
    "log_dir": (_PATH, "directory of the log files"),
}


def _leaf(name: str, kind: Kind, text: str) -> Leaf:
    path = tuple(name.split("."))
    default: Any = Config(directory=Path())
    for part in path:
        default = getattr(default, part, None)
    searched = _SEARCHED.get(path[-1])
    return Leaf(path, kind, searched or default, text, if_exists=searched is not None)


_LEAVES = {leaf.path: leaf for leaf in (_leaf(name, *row) for name, row in _TABLE.items())}
_SECTIONS = tuple(dict.fromkeys(path[0] for path in _LEAVES if len(path) > 1))
_BY_NAME = {path[-1]: path for path in _LEAVES}


def load(
    path: Path | None,
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] = {},
    cwd: Path,
) -> Config:
    """The settings: defaults < file < environment < overrides.

    Without a `path` the file is `config.yaml` in `cwd`, if there is one. `overrides` are what
    `nest` takes; None there is a value (null). Relative paths in the file start from its
    directory, all others from `cwd`. Raises ConfigError.
    """
    file = cwd / (path or "config.yaml")
    found = path is not None or file.exists()
    directory = file.parent if found else cwd
    given = _defaults(directory)
    if found:
        given |= _layer(_read(file), f"{file.name}: ", directory)
    given |= _environment(env, cwd) | _layer(nest(overrides), "", cwd)
    return _build({path: _checked(path, one, env) for path, one in given.items()}, directory)


def leaf_table() -> tuple[Leaf, ...]:
    """Every setting there is, in the order of the reference."""
    return tuple(_LEAVES.values())


def leaf_path(name: str) -> KeyPath:
    """Where the setting called `name` is: `temperature` -> model.temperature.

    Raises ConfigError with the nearest name that exists.
    """
    if name not in _BY_NAME:
        raise ConfigError(_unknown((name,), _shown(name)))
    return _BY_NAME[name]


def nest(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Whole sections (`output_data={...}`) and leaves given by name (`need_time_stamp=False`) as
    one nested mapping; a leaf given by name wins over its section. Raises ConfigError."""
    nested: dict[str, Any] = {
        name: dict(_section(value, name))
        for name, value in kwargs.items()
        if name in _SECTIONS and (name not in _BY_NAME or isinstance(value, Mapping))
    }
    for name in [name for name in kwargs if name not in nested]:
        *above, last = leaf_path(name)
        (nested.setdefault(above[0], {}) if above else nested)[last] = kwargs[name]
    return nested


@dataclass(frozen=True, slots=True)
class _Given:
    """A value, what an error about it starts with, and where a relative path starts."""

    value: Any
    label: str
    directory: Path


def _defaults(directory: Path) -> dict[KeyPath, _Given]:
    def default(leaf: Leaf) -> Any:
        missing = leaf.if_exists and not (directory / leaf.default).is_file()
        return None if missing else leaf.default

    return {path: _Given(default(leaf), leaf.name, directory) for path, leaf in _LEAVES.items()}


def _layer(values: Mapping[Any, Any], label: str, directory: Path) -> dict[KeyPath, _Given]:
    given = {}
    for path, value in _flat(values, label):
        name = label + ".".join(map(_shown, path))
        if path not in _LEAVES:
            raise ConfigError(_unknown(path, name))
        given[path] = _Given(value, name, directory)
    return given


def _flat(values: Mapping[Any, Any], label: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for name, value in values.items():
        if name in _SECTIONS:
            for leaf, one in _section(value, f"{label}{name}").items():
                yield (name, leaf), one
        else:
            yield (name,), value


def _section(value: Any, label: str) -> Mapping[Any, Any]:
    if value is None:  # all its lines are commented out
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{label}: must be a mapping, lines of `key: value`")
    return value


def _environment(env: Mapping[str, str], cwd: Path) -> dict[KeyPath, _Given]:
    """What the variables say; an empty one says nothing."""
    leaves = {leaf.variable: leaf for leaf in _LEAVES.values()}
    given = {}
    for name in sorted(name for name in env if name.startswith(_PREFIX)):
        if name not in leaves:
            nearest = difflib.get_close_matches(name[:100], leaves, 1, 0)[0]
            raise ConfigError(f"{_shown(name)}: unknown variable; did you mean {nearest}?")
        if text := env[name]:
            value = text if leaves[name].kind.text else _parse_yaml(text, name)
            given[leaves[name].path] = _Given(value, name, cwd)
    return given


def _checked(path: KeyPath, given: _Given, env: Mapping[str, str]) -> Any:
    kind = _LEAVES[path].kind
    try:
        return kind.check(given.value, Scope(env, given.directory))
    except ValueError as exc:
        problem = str(exc) or f"must be {kind.phrase}, not {_show(given.value)}"
        raise ConfigError(f"{given.label}: {problem}") from None


def _build(values: Mapping[KeyPath, Any], directory: Path) -> Config:
    tree: dict[str, Any] = {name: {} for name in _SECTIONS}
    for (*above, name), value in values.items():
        (tree[above[0]] if above else tree)[name] = value
    model = tree.pop("model")
    params = {name: value for name in _PARAMETERS if (value := model.pop(name)) is not None}
    return Config(
        model=ModelConfig(**model, params=params),
        prompts=PromptsConfig(**tree.pop("prompts")),
        output_data=OutputConfig(**tree.pop("output_data")),
        work=WorkConfig(**tree.pop("work")),
        directory=directory,
        **tree,
    )


def _shown(key: Any) -> str:
    """An unknown key as far as it looks like one: `api_key:sk-...` lacks a space, and is secret."""
    shown = re.match(r"[\w.-]{0,60}", str(key))[0]  # type: ignore[index]  # matches always
    return shown if shown == str(key) else f"{shown}..."


def _unknown(path: tuple[Any, ...], label: str) -> str:
    """The message about a key that is nowhere, or not where it belongs."""
    everything = {name: name for name in _SECTIONS} | {
        name: ".".join(where) for name, where in _BY_NAME.items()
    }
    name = str(path[-1])[:60]
    if name in _NOT_SETTINGS:
        return f"{label}: cannot be set; batchgen decides it for every request"
    siblings = [one[-1] for one in _LEAVES if len(path) > 1 and one[:-1] == path[:-1]]
    near = name if name in everything else None
    near = near or next(iter(difflib.get_close_matches(name.lower(), siblings, 1)), None)
    nearest = everything[near or difflib.get_close_matches(name.lower(), everything, 1, 0)[0]]
    hint = " A parameter that only your server knows goes under model.extra_body"
    own = path[0] == "model" and nearest.startswith("model.")
    return f"{label}: unknown key; did you mean {nearest}?{hint if own else ''}"


def _read(file: Path) -> Mapping[Any, Any]:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{file.name}: no such file: {file}") from None
    except OSError as exc:
        raise ConfigError(f"{file.name}: cannot be read: {exc.strerror}: {file}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{file.name}: larger than 1 MB, too much for a config")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{file.name}:{line}: not UTF-8") from None
    return _section(_parse_yaml(text, file.name), file.name)


def _parse_yaml(text: str, name: str) -> Any:
    import yaml

    try:
        return _strict_loader()(text).get_single_data()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = ": ".join(filter(None, (exc.context, exc.problem)))
        raise ConfigError(f"{name}{where}: {problem}") from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise ConfigError(f"{name}:{line}: has a control character") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deep") from None


@cache
def _strict_loader() -> "type[yaml.SafeLoader]":
    """PyYAML's safe loader, which takes the last of two equal keys, follows aliases (a few lines
    of them can stand for gigabytes), and has a traceback for an impossible date."""
    import yaml
    from yaml.constructor import ConstructorError

    class StrictLoader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                problem = "an alias (*name) is not supported; write the value out"
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise ConstructorError(None, None, problem, mark)
            return super().compose_node(parent, index)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError):
                raise ConstructorError(None, None, "not a valid value", node.start_mark) from None

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if (key.tag, key.value) in seen:
                    problem = f"the key {_shown(key.value)} is there twice"
                    raise ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

        def refuse(self, node: Any) -> Any:
            problem = "a YAML tag (such as !!python/object) is not allowed"
            raise ConstructorError(None, None, problem, node.start_mark)

    StrictLoader.add_constructor(None, StrictLoader.refuse)
    return StrictLoader
