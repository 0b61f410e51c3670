"""Find and call the function that a config's `def_file` names."""

import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from utils.errors import UserError, unknown_key

PROJECT = Path(__file__).resolve().parent.parent
_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # *args, **options


def in_project(path: str) -> str:
    """The path of a config, from the project's root if it lies there, so that records agree."""
    resolved = Path(path).resolve()
    return str(resolved.relative_to(PROJECT)) if resolved.is_relative_to(PROJECT) else path


def load_function(def_file: str, name: str, where: str) -> Callable[..., Any]:
    """The function `name` of the Python file `def_file` (relative to the project or the cwd).

    Raises:
        UserError: if there is no such file or function, or the file cannot be run.
    """
    path = Path(def_file)
    candidates = [path] if path.is_absolute() else [PROJECT / path, Path.cwd() / path]
    found = next((each for each in candidates if each.is_file()), None)
    if found is None or found.suffix != ".py":
        fault = "no such file" if found is None else "expected a Python file, .py"
        raise UserError(f"{where}.def_file is '{def_file}': {fault}")
    try:
        module = _load_module(found.resolve())
    except (Exception, SystemExit) as error:
        raise UserError(f"{where}.def_file is '{def_file}': {_reason(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{where}.def_file is '{def_file}': it defines no {name}()")
    return function


def _load_module(path: Path) -> ModuleType:
    inside = path.is_relative_to(PROJECT)
    parts = path.relative_to(PROJECT).with_suffix("").parts if inside else ()
    if parts and all(part.isidentifier() for part in parts):
        return importlib.import_module(".".join(parts))  # by its name: it is loaded once
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_params(function: Callable[..., Any], params: dict[str, Any], where: str) -> None:
    """Raise a UserError for a key of `params` that `function` does not take."""
    valid = [key for key, each in _parameters(function).items() if each.kind not in _STARRED]
    open_ended = any(each.kind is each.VAR_KEYWORD for each in _parameters(function).values())
    for key in params:
        if key not in valid and not open_ended:
            raise unknown_key(f"{where}.{key}", key, valid)


def call(
    function: Callable[..., Any], params: dict[str, Any], supplied: dict[str, Any], where: str
) -> Any:
    """Call `function` by keyword: `params` first, then those of `supplied` that it asks for.

    Raises:
        UserError: for an unknown or missing parameter, or anything that the function raises.
    """
    check_params(function, params, where)
    arguments = dict(params)
    for key, parameter in _parameters(function).items():
        if key in arguments or parameter.kind in _STARRED:
            continue
        if key in supplied:
            arguments[key] = supplied[key]
        elif parameter.default is inspect.Parameter.empty:
            raise UserError(f"{where} lacks '{key}', which {function.__module__} needs")
    try:
        return function(**arguments)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:  # of many kinds: torch and its like check values by RuntimeErrors
        name = getattr(function, "__name__", type(function).__name__)
        raise UserError(f"{where}: {name}({str(params)[:200]}) failed: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The error in one line, with the file and line that it came from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}:{last.lineno})"


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters
