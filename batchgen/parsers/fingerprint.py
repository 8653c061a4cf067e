"""What a function does, as a hash: by its code, and by what it refers to.

Followed are the function's bytecode, constants and defaults, the values that it closes over, and
the functions, classes and constants of the user's own modules that it names, those too that it
imports when it is called; never lines, addresses or the names of files. So a comment changes
nothing, and a list of labels beside the function does.
What belongs to Python or to an installed package counts by its name.
"""

import dataclasses
import dis
import functools
import hashlib
import logging
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from uuid import UUID

from batchgen.userfunctions import imported_when_called, is_foreign, is_users_module

_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    type(...),
    type(NotImplemented),
)
_BY_REPR: tuple[type, ...] = (
    date, time, timedelta, timezone, Decimal, Fraction, UUID, PurePath, range, slice,
            typing.TypeVar, typing.ForwardRef)  # fmt: skip
_C_CALLABLES = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
                types.MethodWrapperType, types.ClassMethodDescriptorType)  # fmt: skip
# They are read whenever somebody asks whether the parser has changed.
_MOST_DATA_BYTES = 16 << 20
_MOST_DATA_FILES = 100
_READERS = frozenset(("open", "read_text", "read_bytes"))  # what most code reads files by
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
# In a class: what says nothing, where it stands, or what is made of the rest.
_OF_NO_MEANING = frozenset((
    "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__",
    "__static_attributes__", "__annotations__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__dataclass_fields__", "__dataclass_params__", "__abstractmethods__",
    "_abc_impl", "__signature__", "__class_vars__", "__private_attributes__",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`unknown` names what it refers to whose changes cannot be seen. `sources` are the files of
    the code that was followed, and those that constants may be made of: their SHA-256 by path."""

    digest: str
    unknown: tuple[str, ...]
    sources: Mapping[str, str]


def fingerprint(
    function: Callable[..., object], *more: object, data_files: Collection[str] = ()
) -> Fingerprint:
    """Of a function, a method, a class or a callable object; `more` belongs to it too. The
    `data_files` were opened when it was imported."""
    walk = _Walk()
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if isinstance(function, _C_CALLABLES):
        walk.unknown[f"{name} (no Python code)"] = None
    for one in (function, *more):
        try:
            walk.add(one, name)
        except RecursionError:
            walk.unknown[f"{name} (nested too deep)"] = None
    files = set(walk.files)
    if sum(map(_size, data_files)) <= _MOST_DATA_BYTES and len(data_files) <= _MOST_DATA_FILES:
        files |= set(data_files)
    else:
        walk.unknown["files that are read as it is imported (too many, or too large)"] = None
    sources = {file: digest for file in sorted(files) if (digest := file_digest(file))}
    return Fingerprint(walk.digest(), tuple(walk.unknown), sources)


def file_digest(file: str) -> str | None:
    """The SHA-256 of a file; None: there is none that can be read."""
    try:
        with Path(file).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except (OSError, ValueError):
        return 0


class _Walk:
    """Everything goes into one hash, in an order that depends on names only. What was met before is
    named by its number: functions may refer to each other."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._met: dict[int, int] = {}
        self._kept: list[object] = []  # alive, so that their ids stay theirs
        self.unknown: dict[str, None] = {}
        self.files: set[str] = set()

    def digest(self) -> str:
        return self._hash.hexdigest()[:32]

    def add(self, value: object, name: str) -> None:
        """`name` is what the user knows it by."""
        if type(value) in _PLAIN:
            self._put(type(value).__name__, _plain_text(value))
        elif isinstance(value, _BY_REPR):
            self._put(type(value).__name__, repr(value))
        elif not self._was_met(value):
            self._add_object(value, name)

    def _put(self, *words: str) -> None:
        for word in words:
            encoded = word.encode(errors="surrogatepass")
            self._hash.update(f"{len(encoded)}:".encode() + encoded)

    def _was_met(self, value: object) -> bool:
        if id(value) in self._met:
            self._put("met", str(self._met[id(value)]))
            return True
        self._met[id(value)] = len(self._met)
        self._kept.append(value)
        return False

    def _add_object(self, value: object, name: str) -> None:
        match value:
            case types.FunctionType():
                self._add_function(value)
            case types.MethodType():
                self._add_all("method", [value.__func__, value.__self__], name)
            case staticmethod() | classmethod():
                self._add_all(type(value).__name__, [value.__func__], name)
            case property():
                self._add_all("property", [value.fget, value.fset, value.fdel], name)
            case functools.partial():
                parts = [value.func, value.args, value.keywords]
                self._add_all("partial", parts, name)
            case types.CodeType():
                self._add_code(value)
            case types.ModuleType():
                self._put("module", value.__name__)
            case _ if typing.get_origin(value) is not None:
                self._add_all("type", [typing.get_origin(value), typing.get_args(value)], name)
            case type():
                self._add_class(value)
            case _:
                self._add_value(value, name)

    def _add_all(self, kind: str, parts: Iterable[object], name: str) -> None:
        self._put(kind)
        for part in parts:
            self.add(part, name)

    def _add_value(self, value: object, name: str) -> None:
        match value:
            case Enum():
                self._put("member", value.name)
                self.add(type(value), name)
            case list() | tuple():
                self._add_all(f"{type(value).__name__} {len(value)}", value, name)
            case Mapping():
                pairs = [part for pair in value.items() for part in pair]
                self._add_all(f"{type(value).__name__} {len(value)}", pairs, name)
            case set() | frozenset():
                self._put(type(value).__name__, *sorted(self._digest_apart(one) for one in value))
            case _ if isinstance(value, _C_CALLABLES):
                self._put("C", str(getattr(value, "__qualname__", name)))
                owner = getattr(value, "__self__", None)
                self.add(owner if owner is not None else value.__class__.__name__, name)
            case _ if hasattr(value, "pattern") and hasattr(value, "flags"):  # a compiled regex
                self._add_all("pattern", [value.pattern, int(value.flags)], name)
            case logging.Logger():
                self._put("logger", value.name)
            case _:
                self._add_instance(value, name)

    def _digest_apart(self, value: object) -> str:
        apart = _Walk()
        apart.add(value, "")
        self.unknown |= apart.unknown
        return apart.digest()

    def _add_instance(self, value: object, name: str) -> None:
        kind = type(value)
        wrapped = getattr(value, "__wrapped__", None)
        if wrapped is not None:  # functools.cache and its kin
            self._add_all(kind.__name__, [wrapped], name)
        elif _is_users(kind):
            self.add(kind, name)
            named = set(_names_in_class(kind))
            for attribute, one in sorted(_attributes(value).items()):
                if attribute in named or dataclasses.is_dataclass(value):
                    self._put(attribute)
                    self.add(one, f"{name}.{attribute}")
        elif dataclasses.is_dataclass(value):
            parts = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
            self._add_all(kind.__qualname__, parts, name)
        else:
            self._put("unknown", kind.__module__, kind.__qualname__)
            if not _says_all_by_its_class(kind):
                self.unknown[f"{name} ({kind.__name__})"] = None

    def _add_function(self, function: types.FunctionType) -> None:
        if is_foreign(function.__code__.co_filename):
            self._put("function", function.__module__ or "", function.__qualname__)
            if wrapped := getattr(function, "__wrapped__", None):
                self.add(wrapped, function.__name__)
            return
        self._put("function")
        self._add_code(function.__code__)
        self.add(function.__defaults__, f"a default of {function.__name__}")
        self.add(function.__kwdefaults__, f"a default of {function.__name__}")
        names = sorted(set(_names_in(function.__code__)))
        seen: set[int] = set()
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=False
        ):
            self._put(name)
            with suppress(ValueError):  # empty: it is set later
                self._add_named(cell.cell_contents, name, names, seen)
        for name in names:
            if name in function.__globals__:
                self._put(name)
                self._add_named(function.__globals__[name], name, names, seen)
            elif name in _READERS:
                self.unknown[f"the files that {function.__name__} opens"] = None
        for name in sorted(set(_imports_in(function.__code__))):
            self._add_imported(name, names, seen)

    def _add_named(self, value: object, name: str, names: list[str], seen: set[int]) -> None:
        """What a function names; of a module, and of an object of the user's own class, what it
        names there. `seen` are those."""
        self.add(value, name)
        inside = _inside(value)
        if not inside or id(value) in seen:
            return
        seen.add(id(value))
        for attribute in names:
            if attribute in inside:
                self._put(attribute)
                self._add_named(inside[attribute], f"{name}.{attribute}", names, seen)

    def _add_imported(self, name: str, names: list[str], seen: set[int]) -> None:
        """What a function imports when it is called."""
        self._put("import", name)
        try:
            module = imported_when_called(name, names)
        except Exception:  # it will say why when it is called
            self.unknown[f"{name or 'a relative import'} (cannot be imported yet)"] = None
            return
        if module is not None:
            self._add_named(module, name, names, seen)

    def _add_code(self, code: types.CodeType) -> None:
        self.files.add(code.co_filename)
        self._put("code", code.co_code.hex(), code.co_exceptiontable.hex(), str(code.co_flags))
        self._put(*map(str, (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)))
        self._put(
            *code.co_names, "", *code.co_varnames, "", *code.co_freevars, "", *code.co_cellvars
        )
        # A class within a function keeps its line, since Python 3.13.
        line = code.co_firstlineno if "__firstlineno__" in code.co_names else None
        for constant in code.co_consts:
            if line is None or constant != line:
                self.add(constant, "a constant")

    def _add_class(self, kind: type) -> None:
        self._put("class", kind.__name__)
        if not _is_users(kind):
            self._put(kind.__module__, kind.__qualname__)
            return
        for base in kind.__bases__:
            self.add(base, base.__name__)
        if issubclass(kind, Enum):
            self.add({name: one.value for name, one in kind.__members__.items()}, kind.__name__)
        for name, value in sorted(vars(kind).items()):
            made = name.startswith("__pydantic_") or isinstance(value, (*_SLOTS, kind))
            if not made and name not in _OF_NO_MEANING:
                self._put(name)
                self.add(value, f"{kind.__name__}.{name}")
        self._add_fields(kind)

    def _add_fields(self, kind: type) -> None:
        """Those of a pydantic model: their types, defaults and validators."""
        fields = vars(kind).get("__pydantic_fields__") or {}
        for name, field in fields.items():
            parts = [field.annotation, field.default, field.default_factory, list(field.metadata)]
            self._add_all(name, parts, f"{kind.__name__}.{name}")


def _plain_text(value: object) -> str:
    return format(value, "x") if isinstance(value, int) else ascii(value)


def _names_in(code: types.CodeType) -> Iterator[str]:
    """All names of globals and attributes, those of functions within it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _imports_in(code: types.CodeType) -> Iterator[str]:
    """The modules that its import statements name; "" in `from . import x`."""
    yield from (one.argval for one in dis.get_instructions(code) if one.opname == "IMPORT_NAME")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imports_in(constant)


def _names_in_class(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        for value in vars(base).values() if _is_users(base) else ():
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(function, types.FunctionType):
                yield from _names_in(function.__code__)


def _inside(value: object) -> dict[str, object]:
    """What an attribute of it can name."""
    if isinstance(value, types.ModuleType):
        return vars(value) if is_users_module(value) else {}
    return _attributes(value) if _is_users(type(value)) else {}


def _attributes(value: object) -> dict[str, object]:
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with suppress(AttributeError):
                found[name] = getattr(value, name)
    return found


def _is_users(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return module is None or is_users_module(module)


def _says_all_by_its_class(kind: type) -> bool:
    """Whether its objects have nothing that could change: a marker, or a lock."""
    return kind.__module__ in ("_thread", "typing") or "Undefined" in kind.__name__
