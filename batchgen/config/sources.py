"""Where a value comes from: the last of defaults < file < environment < overrides that has one.
Only the value that wins is checked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.config.kinds import (
    MOST_SLOTS,
    NOT_SETTINGS,
    PARAMETERS,
    NestedError,
    ValueContext,
    named_variable,
    shown_key,
    shown_value,
    url_variables,
)
from batchgen.config.sent import with_query_of
from batchgen.config.servers import ServerConfig
from batchgen.config.settings import (
    ENVIRONMENT_PREFIX,
    LEAF_PATHS,
    LEAVES,
    SECTIONS,
    KeyPath,
    Leaf,
    leaf_path,
    unknown_key,
)
from batchgen.config.strict_yaml import parse_yaml, read_file
from batchgen.config.values import (
    BatchConfig,
    Config,
    ModelConfig,
    OutputConfig,
    PromptsConfig,
    WorkConfig,
)
from batchgen.errors import ConfigError


def load(
    path: Path | None,
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] = {},
    options: Mapping[str, str] = {},
    cwd: Path,
) -> Config:
    """The settings: defaults < file < environment < overrides.

    Without a `path` the file is `config.yaml` in `cwd`, if there is one. `overrides` are what
    `nest` takes; None there is a value (null). An error about one of them names the option by which
    it was given, if it is among `options`. Relative paths in the file start from its directory, all
    others from `cwd`. Raises ConfigError.
    """
    file = cwd / (path or "config.yaml")
    found = path is not None or file.exists()
    directory = file.parent if found else cwd
    given = _defaults(directory)
    default_parser, default_concurrency = given[("parser",)], given["work", "concurrency"]
    if found:
        _put(_layer(_section(read_file(file), file.name), f"{file.name}: ", directory), given)
    _put(_environment(env, cwd), given)
    _put(_layer(nest(overrides), "", cwd, options), given)
    values = {path: _checked(path, one, env) for path, one in given.items()}
    _take_query_out_of_url(values, given["model", "query"].label)
    if variable := named_variable(given["model", "api_key"].value):
        values["model", "api_key_variable"] = variable
    values["model", "url_variables"] = url_variables(given["model", "base_url"].value, env)
    if servers := values["model", "servers"]:
        values["model", "base_url"] = servers[0].base_url  # for estimates
        values["model", "url_variables"] = servers[0].url_variables
        if given["work", "concurrency"] is default_concurrency:
            values["work", "concurrency"] = _slots_of_all(servers)
    config = _build(values, directory)
    names_parser = given[("parser",)] is not default_parser and not config.steps
    if config.steps or config.result:
        config = replace(config, steps_place=given["steps",].label)
        _check_together(config, given["result",].label)
    return replace(config, file=file if found else None, names_parser=names_parser)


def _check_together(config: Config, label_of_result: str) -> None:
    from batchgen.config.steps import check_models, check_result  # here: most configs have none

    check_models(config)
    try:
        check_result(config.result, config.steps)
    except ValueError as exc:
        raise ConfigError(f"{label_of_result}: {exc}") from None


def _put(layer: Mapping[KeyPath, "_Given"], given: dict[KeyPath, "_Given"]) -> None:
    """Put a layer over what was given below it. Of a prompt's file and its text the upper one
    counts; in one layer there is one of them."""
    for name in ("system_prompt", "user_prompt"):
        text, path = ("prompts", name), ("prompts", f"{name}_path")
        if path not in layer or layer[path].value is None:
            continue
        if text in layer and layer[text].value is not None:
            raise ConfigError(f"{layer[text].label}: {name}_path names a file for it; give one")
        given[text] = _Given(None, given[text].label, given[text].directory)
    _put_servers(layer, given)
    _put_steps(layer, given)
    given.update(layer)


def _put_steps(layer: Mapping[KeyPath, "_Given"], given: dict[KeyPath, "_Given"]) -> None:
    """Steps take the place of the one prompt and parser of the layers below."""
    has_steps = ("steps",) in layer and bool(layer["steps",].value)
    if not layer.get(("steps",), given["steps",]).value:
        return
    for path, key in _OF_STEPS.items():
        if path in layer and layer[path].value:
            raise ConfigError(
                f"{layer[path].label}: stands beside steps, each of which has its own; it goes "
                f"into one of them, as {key}"
            )
        if has_steps:
            given[path] = _Given(_WITHOUT.get(path), given[path].label, given[path].directory)


_OF_STEPS = {
    ("prompts", "system_prompt_path"): "system: FILE",
    ("prompts", "user_prompt_path"): "user: FILE",
    ("prompts", "system_prompt"): "system: {text: ...}",
    ("prompts", "user_prompt"): "user: {text: ...}",
    ("parser",): "parser",
    ("structured_output",): "structured_output",
}
_WITHOUT: Mapping[KeyPath, Any] = {
    ("parser",): "raw",
    ("structured_output",): False,
}  # of the others there is none


def _put_servers(layer: Mapping[KeyPath, "_Given"], given: dict[KeyPath, "_Given"]) -> None:
    """Of one server and several the upper layer's count, and one layer has the one or the
    others."""
    servers, url, key = (("model", name) for name in ("servers", "base_url", "api_key"))
    named = [path for path in (url, key) if path in layer and layer[path].value is not None]
    has_several = servers in layer and bool(layer[servers].value)
    if (has_several and named) or (named == [key] and given[servers].value):
        raise ConfigError(
            f"{layer[named[0]].label}: stands beside model.servers; it goes into each of them that "
            "it is for"
        )
    if named:
        given[servers] = _Given(None, given[servers].label, given[servers].directory)
    if has_several:
        for path in (url, key):
            given[path] = _Given(LEAVES[path].default, given[path].label, given[path].directory)


def nest(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Whole sections (`output_data={...}`) and leaves given by name (`need_time_stamp=False`) as
    one nested mapping; a leaf given by name wins over its section. Raises ConfigError."""
    nested: dict[str, Any] = {
        name: dict(_section(value, name))
        for name, value in kwargs.items()
        if name in SECTIONS and (name not in LEAF_PATHS or isinstance(value, Mapping))
    }
    for name in [name for name in kwargs if name not in nested]:
        *above, last = leaf_path(name)
        (nested.setdefault(above[0], {}) if above else nested)[last] = kwargs[name]
    return nested


def model_setting(given: str) -> tuple[str, Any]:
    """The name and the value in `KEY=VALUE`, for the model's name or a chat-completion parameter.
    VALUE is read as in an environment variable; null means that it is not sent. Raises
    ConfigError."""
    key, equals, text = given.partition("=")
    name = key.strip().removeprefix("model.")
    if not equals:
        raise ConfigError(f"{shown_key(name)}: no value; write {shown_key(name)}=VALUE")
    if name not in PARAMETERS and name != "model":
        raise ConfigError(_no_model_setting(name))
    path = ("model", name)
    kind = LEAVES[path].kind
    value = text if kind.text and text != "null" else parse_yaml(text, name)
    return name, _checked(path, _Given(value, name, Path()), {})


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # here: nearly every config has no unknown name

    return get_close_matches(name, known, 1, 0)[0]


def _no_model_setting(name: str) -> str:
    shown = shown_key(name)
    if name in NOT_SETTINGS:
        return f"{shown}: cannot be set; batchgen decides it for every request"
    if name in LEAF_PATHS and name not in SECTIONS:
        return f"{shown}: does not belong to the request; set it in config.yaml"
    nearest = _nearest(name.lower()[:60], ("model", *PARAMETERS))
    hint = "A parameter that only your server knows goes under extra_body"
    return f"{shown}: unknown key; did you mean {nearest}? {hint}"


class _Given(Struct, frozen=True):
    """A value, the label that an error about it begins with, and the directory that a relative path
    in it starts from."""

    value: Any
    label: str
    directory: Path


def _defaults(directory: Path) -> dict[KeyPath, _Given]:
    def default(leaf: Leaf) -> Any:
        missing = leaf.if_exists and not (directory / leaf.default).is_file()
        return None if missing else leaf.default

    return {path: _Given(default(leaf), leaf.name, directory) for path, leaf in LEAVES.items()}


def _layer(
    values: Mapping[Any, Any], label: str, directory: Path, options: Mapping[str, str] = {}
) -> dict[KeyPath, _Given]:
    given, named = {}, {leaf_path(name): option for name, option in options.items()}
    for path, value in _flat(values, label):
        name = label + ".".join(map(shown_key, path))
        if path not in LEAVES:
            raise ConfigError(unknown_key(path, name))
        given[path] = _Given(value, named.get(path, name), directory)
    return given


def _flat(values: Mapping[Any, Any], label: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for name, value in values.items():
        if name in SECTIONS:
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
    """The settings in environment variables; an empty variable sets nothing."""
    leaves = {leaf.variable: leaf for leaf in LEAVES.values()}
    given = {}
    for name in sorted(name for name in env if name.startswith(ENVIRONMENT_PREFIX)):
        if name not in leaves:
            nearest = _nearest(name[:100], leaves)
            raise ConfigError(f"{shown_key(name)}: unknown variable; did you mean {nearest}?")
        if text := env[name]:
            value = text if leaves[name].kind.text else parse_yaml(text, name)
            given[leaves[name].path] = _Given(value, name, cwd)
    return given


def _checked(path: KeyPath, given: _Given, env: Mapping[str, str]) -> Any:
    kind = LEAVES[path].kind
    try:
        return kind.check(given.value, ValueContext(env, given.directory))
    except NestedError as exc:
        dot = "" if exc.path.startswith("[") else "."
        raise ConfigError(f"{given.label}{dot}{exc.path}: {exc}") from None
    except ValueError as exc:
        problem = str(exc) or f"must be {kind.phrase}, not {shown_value(given.value)}"
        raise ConfigError(f"{given.label}: {problem}") from None


def _take_query_out_of_url(values: dict[KeyPath, Any], label: str) -> None:
    url, query = ("model", "base_url"), ("model", "query")
    try:
        values[url], values[query] = with_query_of(values[url], values[query])
    except NestedError as exc:
        raise ConfigError(f"{label}.{exc.path}: {exc}") from None


def _slots_of_all(servers: Sequence[ServerConfig]) -> int:
    """What `work.concurrency` is by default, where there are several servers."""
    slots = sum(server.concurrency or WorkConfig().concurrency for server in servers)
    return min(slots, MOST_SLOTS)


def _build(values: Mapping[KeyPath, Any], directory: Path) -> Config:
    tree: dict[str, Any] = {name: {} for name in SECTIONS}
    for (*above, name), value in values.items():
        (tree[above[0]] if above else tree)[name] = value
    model = tree.pop("model")
    params = {name: value for name in PARAMETERS if (value := model.pop(name)) is not None}
    return Config(
        model=ModelConfig(**model, params=params),
        prompts=PromptsConfig(**tree.pop("prompts")),
        output_data=OutputConfig(**tree.pop("output_data")),
        work=WorkConfig(**tree.pop("work")),
        batch=BatchConfig(**tree.pop("batch")),
        directory=directory,
        **tree,
    )
