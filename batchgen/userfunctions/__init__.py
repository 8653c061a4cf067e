"""The user's own functions, named in a spec: `module:function` or `path/to/file.py:function`.

A module is looked for in the folder of the config that names it, then in the current directory,
before what is installed; and the modules that a file imports in the file's own directory, as
`python file.py` would do. Afterwards these folders stay at the end of `sys.path`: functions that
import something when they are called still work, and a user's `openai.py` cannot replace the real
one, which batchgen itself imports late.
"""

import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from batchgen.errors import ConfigError, UsageError
from batchgen.text.json_text import storable
from batchgen.userfunctions.opened_files import noting_opened_files

# Frames in these folders are not of the user's code: the standard library, and batchgen.
_FOREIGN_FOLDERS = (str(Path(os.__file__).parent), str(Path(__file__).parents[1]), "<frozen ")
# The file or module of the user's that is being imported; a thread that it starts knows it too.
_imported: ContextVar[str | None] = ContextVar("imported", default=None)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_executed: dict[str, bytes] = {}  # by a file's module: the SHA-256 of what was executed
# By a module, the data files that it opened as it was imported.
_opened_by: dict[str, set[str]] = {}
_DOTTED_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_function_spec(spec: str) -> bool:
    """Whether `spec` has the form of a function's name; it need not exist."""
    source, name = _split(spec)
    if source.endswith(".py"):
        return not name or _DOTTED_NAME.fullmatch(name) is not None
    return all(_DOTTED_NAME.fullmatch(part) for part in (source, name))


def load_function(
    spec: str, default_name: str | None = None, folder: Path | None = None
) -> Callable[..., Any]:
    """The function that `spec` names; `default_name` is used when the spec is only a file. A module
    is looked for in `folder` first.

    Raises ConfigError, in one line, when there is no such file, module or function, when importing
    it raised, or when it cannot be called.
    """
    source, name = _split(spec)
    name = name or default_name or ""
    if not name or not is_function_spec(f"{source}:{name}"):
        raise ConfigError(
            f"{spec!r} names no function; write module:function or path/to/file.py:function"
        )
    module = _load_file(source) if source.endswith(".py") else _import_module(source, folder)
    function = _find(module, name, source)
    if not callable(function):
        raise ConfigError(f"{source}: {name} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def data_files_of(function: Callable[..., Any], spec: str) -> set[str]:
    """The files that were opened when the function, and what `spec` names, was imported: the values
    of constants may come from there."""
    source, _ = _split(spec)
    names = {source, getattr(function, "__module__", "")}
    return {file for name in names for file in _opened_by.get(name, ())}


def imported_when_called(name: str, names: Iterable[str]) -> ModuleType | None:
    """The module that a function imports by this name, imported now, as the function would do it,
    with those of its submodules that are among `names`; None: it is none of the user's. Raises
    ImportError, or what the import raises."""
    top, _, _ = name.partition(".")
    if not top:
        raise ImportError(name)
    if top not in sys.modules and _is_foreign_module(top):
        return None
    with _importing(name):
        module = importlib.import_module(name)
        if is_users_module(module) and hasattr(module, "__path__"):
            for submodule in (f"{name}.{one}" for one in names if not hasattr(module, one)):
                if importlib.util.find_spec(submodule) is not None:
                    importlib.import_module(submodule)
    return module if is_users_module(module) else None


def _is_foreign_module(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(name)
    places = [spec.origin or ""] if spec.has_location else spec.submodule_search_locations or ()
    return all(map(is_foreign, places))


def is_users_module(module: ModuleType) -> bool:
    if module.__name__ == "__main__":
        return True
    if file := getattr(module, "__file__", None):
        return not is_foreign(file)
    if folders := getattr(module, "__path__", ()):  # a package without a file of its own
        return not all(map(is_foreign, folders))
    return getattr(module, "__spec__", None) is None  # made by hand, as a notebook's may be


def is_foreign(file: str) -> bool:
    """Whether this file is no code of the user's: the standard library, batchgen, or installed."""
    return file.startswith(_FOREIGN_FOLDERS) or any(one in file for one in _INSTALLED)


def raised_at(exc: BaseException) -> str:
    """`file:line` of the innermost line of the user's code that `exc` came through, or ""."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}:{exc.lineno}"
    places = [
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(exc.__traceback__)
    ]
    outside = [place for place in places if not place[0].startswith(_FOREIGN_FOLDERS)]
    own = [place for place in outside if "site-packages" not in place[0]]
    for file, line in reversed(own or outside):
        return f"{file}:{line}"
    return raised_at(exc.__cause__) if exc.__cause__ else ""


def describe(exc: BaseException) -> str:
    """What the user's code raised, in one line: `ValueError: no title (my_parser.py:12)`."""
    message = storable(exc.msg) if isinstance(exc, SyntaxError) else text_of(exc)
    error = f"{type(exc).__name__}: {message}" if message else type(exc).__name__
    place = raised_at(exc)
    return f"{error} ({storable(place)})" if place else error


def text_of(exc: BaseException) -> str:
    """Its message in one line that can be stored, whatever the user's code put into it."""
    try:
        return storable(" ".join(str(exc).split()))
    except Exception:  # an exception's __str__ is the user's code too
        return "(its message cannot be shown)"


def _split(spec: str) -> tuple[str, str]:
    if spec.endswith(".py"):
        return spec, ""
    source, _, name = spec.rpartition(":")
    return source, name


def _load_file(source: str) -> ModuleType:
    """The module in this file; a file is executed once, however often it is named, and again when
    it has changed since."""
    path = Path(source).resolve()
    if not path.is_file():
        problem = "is a directory" if path.is_dir() else "no such file"
        raise ConfigError(f"{source}: {problem}")
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    name = f"batchgen_user_{path.stem}_{digest}"
    try:
        content = hashlib.sha256(path.read_bytes()).digest()
    except OSError as exc:
        raise ConfigError(f"{source}: cannot read it ({exc.strerror})") from exc
    if name in sys.modules and _executed.get(name) == content:
        return sys.modules[name]
    with _first_on_path(path.parent):
        module = _execute(source, name, path)
    _executed[name] = content
    return module


class _FromSource(SourceFileLoader):
    """Never from bytecode: Python takes what it has kept for that of a file which was edited within
    the same second and is as long as before."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _execute(source: str, name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        with _importing(source), noting_opened_files() as opened:
            spec.loader.exec_module(module)
        _opened_by[source] = _data_files(opened)
    except (Exception, SystemExit) as exc:
        del sys.modules[name]
        raise _import_error(source, exc) from exc
    return module


def _import_module(name: str, folder: Path | None) -> ModuleType:
    folders = list(
        dict.fromkeys([Path.cwd()] if folder is None else [Path.cwd(), folder.resolve()])
    )
    with ExitStack() as stack:
        for one in folders:
            stack.enter_context(_first_on_path(one))
        importlib.invalidate_caches()  # the file may be newer than the process
        try:
            with _importing(name), noting_opened_files() as opened:
                module = importlib.import_module(name)
            _opened_by.setdefault(name, _data_files(opened))
            return module
        except ModuleNotFoundError as exc:
            if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
                places = " or ".join(map(str, reversed(folders)))
                raise ConfigError(
                    f"no module named {exc.name!r}, neither installed nor in {places}"
                ) from exc
            raise _import_error(name, exc) from exc
        except (Exception, SystemExit) as exc:
            raise _import_error(name, exc) from exc


def _data_files(opened: set[str]) -> set[str]:
    """Without code, which is followed by what of it is used."""
    return {
        file
        for file in opened
        if not (file.endswith((".py", ".pyc")) or _is_a_device(file) or is_foreign(file))
    }


def _is_a_device(file: str) -> bool:
    """Or what the system says of itself; files that are kept in memory are files."""
    memory = "/dev/shm/"  # noqa: S108  nothing is written there
    return file.startswith(("/proc/", "/sys/", "/dev/")) and not file.startswith(memory)


@contextmanager
def _importing(source: str) -> Iterator[None]:
    """While inside, no bytecode is kept: the user is just editing these files."""
    token, before = _imported.set(source), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        _imported.reset(token)


def refuse_while_imported(what: str) -> None:
    """Raises UsageError when a file runs `what` only because it is imported for a function of its:
    it would do all of its work, when just the function was wanted."""
    if (source := _imported.get()) is not None:
        raise UsageError(_ran_by_import(source, what))


def _ran_by_import(source: str, what: str) -> str:
    return (
        f"importing {source} for its function ran {what}: put what the script does under "
        '`if __name__ == "__main__":`, or the function into a file of its own'
    )


def _import_error(source: str, exc: BaseException) -> ConfigError:
    if isinstance(exc, UsageError):
        return ConfigError(str(exc))
    if isinstance(exc, RuntimeError) and "running event loop" in str(exc):  # asyncio.run's words
        return ConfigError(_ran_by_import(source, f"asyncio.run ({raised_at(exc)})"))
    return ConfigError(f"cannot import {source}: {describe(exc)}")


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    entry = str(folder)
    if entry in sys.path[:1]:
        yield
        return
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
        if entry not in sys.path:
            sys.path.append(entry)


def _find(module: ModuleType, name: str, source: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, _public_names(found), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{source} has no {name}{hint}")
        found = getattr(found, part)
    return found


def _public_names(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]
