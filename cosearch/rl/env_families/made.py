"""How one Gymnasium environment is made: from its registered id, or by a function or class of a module."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from latency_tables.errors import ConfigError, EnvironmentFailedError, MissingExtraError, UnknownNameError
from latency_tables.text.reading import shown


def maker_of(name: str, kwargs: Mapping[str, Any]) -> Callable[[], Any]:
    """The maker of an environment.

    Args:
        name: a registered id, ``Env-v0`` or ``module:Env-v0``; or ``package.module:function``.
        kwargs: keyword arguments.

    Raises:
        UnknownNameError: there is no such module, nor such a function or id in it.
    """
    module, colon, last = name.partition(":")
    function = _function(module, last, name) if colon and last.isidentifier() else None
    make = _registered(name, kwargs) if function is None else lambda: function(**kwargs)

    def made() -> Any:
        try:
            return _checked(make(), name)
        except TypeError as error:
            if not kwargs:
                raise
            raise ConfigError(f"environment {name!r} cannot be made with env.kwargs {shown(dict(kwargs))}: {error}") from error

    return made


def _function(module: str, name: str, wanted: str) -> Callable[..., Any] | None:
    """What a module has under a name that is no registered id; None where the name is one."""
    import gymnasium

    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise _no_module(wanted, module, error) from error
    if name in gymnasium.registry or any(known.rpartition("-v")[0] == name for known in gymnasium.registry):
        return None
    if not callable(found):
        raise UnknownNameError(
            f"environment {wanted!r}: module {module!r} has no function or class {name!r}, and registers no environment {name!r}"
        )
    function: Callable[..., Any] = found
    return function


def _registered(name: str, kwargs: Mapping[str, Any]) -> Callable[[], Any]:
    import gymnasium

    def make() -> Any:
        try:
            return gymnasium.make(name, **kwargs)
        except gymnasium.error.DependencyNotInstalled as error:
            raise MissingExtraError(
                f"environment {name!r} needs a package that is not installed: {error}. LunarLander and its "
                "kind: pip install '.[box2d]' (needs no compiler)"
            ) from error
        except gymnasium.error.Error as error:
            raise UnknownNameError(f"Gymnasium has no environment {name!r}: {error}") from error
        except ModuleNotFoundError as error:
            if ":" not in name:
                raise
            raise _no_module(name, name.partition(":")[0], error) from error

    return make


def _no_module(name: str, module: str, error: ModuleNotFoundError) -> Exception:
    """The error for a module that is not there; where it is there, and lacks another one, that error itself."""
    if error.name is not None and not f"{module}.".startswith(f"{error.name}."):
        return error
    return UnknownNameError(
        f"environment {name!r}: there is no module {module!r} in {Path.cwd()} or among the installed packages. Go to the "
        f"folder of {module.partition('.')[0]}, or name that folder: PYTHONPATH=FOLDER before the command"
    )


def _checked(env: Any, name: str) -> Any:
    lacks = [word for word in ("observation_space", "action_space", "reset", "step") if not hasattr(env, word)]
    if lacks:
        raise EnvironmentFailedError(f"{name} gives {type(env).__name__}, which has no {', '.join(lacks)}: no environment")
    if hasattr(env, "num_envs"):
        raise EnvironmentFailedError(f"{name} gives {type(env).__name__}, a vector environment; expected a single one")
    return env
