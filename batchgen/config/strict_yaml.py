"""Reads a config file: YAML, strictly. The only module that knows YAML."""

from codecs import BOM_UTF8
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.config.kinds import shown_key
from batchgen.errors import ConfigError

if TYPE_CHECKING:
    import yaml

_MAX_FILE_BYTES = 1_000_000  # PyYAML reads about 0.1 MB a second


def read_file(file: Path) -> Any:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{file.name}: no such file: {file}") from None
    except OSError as exc:
        raise ConfigError(f"{file.name}: cannot be read: {exc.strerror}: {file}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{file.name}: larger than 1 MB, too much for a config")
    data = data.removeprefix(BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        from batchgen.text.encoding import utf8_problem  # here: nearly every file is UTF-8

        raise ConfigError(f"{file.name}:{line}: {utf8_problem(exc)}") from None
    return parse_yaml(text, file.name)


def parse_yaml(text: str, name: str) -> Any:
    import yaml

    try:
        return _strict_loader()(text).get_single_data()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = ": ".join(filter(None, (exc.context, exc.problem)))
        raise ConfigError(f"{name}{where}: {problem}{_hint(problem)}") from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise ConfigError(f"{name}:{line}: has a control character") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deep") from None


_HINTS = {  # what PyYAML's message mostly means; its own words are those of a grammar
    r"'\t'": "indent with spaces, not with tabs",
    "cannot start any token": "put the text in quotes",
    "<stream end>": "a bracket is not closed",
    "unexpected end of stream": "a quote is not closed",
    "mapping values are not allowed": "put a text with a colon in quotes, or mend the indentation",
    "<block end>": "check the indentation, the quotes and the brackets here",
}


def _hint(problem: str) -> str:
    return next((f"; {hint}" for sign, hint in _HINTS.items() if sign in problem), "")


@cache
def _strict_loader() -> "type[yaml.SafeLoader]":
    """PyYAML's safe loader, made strict: on its own it takes the last of two equal keys, follows
    aliases (a few lines of them can expand to gigabytes), and ends with a traceback at an
    impossible date."""
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
                    problem = f"the key {shown_key(key.value)} is there twice"
                    raise ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

        def refuse(self, node: Any) -> Any:
            problem = "a YAML tag (such as !!python/object) is not allowed"
            raise ConstructorError(None, None, problem, node.start_mark)

    StrictLoader.add_constructor(None, StrictLoader.refuse)
    return StrictLoader
