"""Find and call the function that a config's `def_file` names."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import UserError, unknown_key

PROJECT = Path(__file__).resolve().parent.parent


def load_function(def_file: str, name: str, where: str) -> Callable[..., Any]:
    """The function `name` of the Python file `def_file` (relative to the project or the cwd).

    Raises:
        UserError: if there is no such file or function.
    """
    path = Path(def_file)
    candidates = [path] if path.is_absolute() else [PROJECT / path, Path.cwd() / path]
    found = next((each for each in candidates if each.is_file()), None)
    if found is None:
        raise UserError(f"{where}.def_file is '{def_file}': no such file")
    found = found.resolve()
    if found.is_relative_to(PROJECT):  # by its module name, so that it is loaded once
        dotted = ".".join(found.relative_to(PROJECT).with_suffix("").parts)
        module = importlib.import_module(dotted)
    else:
        spec = importlib.util.spec_from_file_location(found.stem, found)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if function is None:
        raise UserError(f"{where}.def_file is '{def_file}': it defines no {name}()")
    return function


def check_params(function: Callable[..., Any], params: dict[str, Any], where: str) -> None:
    """Raise a UserError for a key of `params` that `function` does not take."""
    valid = list(inspect.signature(function).parameters)
    for key in params:
        if key not in valid:
            raise unknown_key(f"{where}.{key}", key, valid)


def call(
    function: Callable[..., Any], params: dict[str, Any], supplied: dict[str, Any], where: str
) -> Any:
    """Call `function` by keyword: `params` first, then those of `supplied` that it asks for.

    Raises:
        UserError: for an unknown or missing parameter.
    """
    check_params(function, params, where)
    arguments = dict(params)
    for key, parameter in inspect.signature(function).parameters.items():
        if key in arguments:
            continue
        if key in supplied:
            arguments[key] = supplied[key]
        elif parameter.default is inspect.Parameter.empty:
            raise UserError(f"{where} lacks '{key}', which {function.__module__} needs")
    return function(**arguments)
