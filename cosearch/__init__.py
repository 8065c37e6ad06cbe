"""Search the deep-RL agent for a device, play the agent that was found, and ask what a network would cost.

The public Python interface, ten names: :func:`search`, :func:`load_run`, :func:`load_agent`, :func:`predict`, :func:`measure`
and the records they return. Nothing is imported before it is used, so that ``import cosearch`` takes no time and an agent plays
where torch is not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosearch.api import load_agent as load_agent
    from cosearch.api import measure as measure
    from cosearch.api import predict as predict
    from cosearch.api import search as search
    from cosearch.deploy.player import Agent as Agent
    from cosearch.results import MeasuredTable as MeasuredTable
    from cosearch.results import OperationCost as OperationCost
    from cosearch.results import Prediction as Prediction
    from cosearch.results import Run as Run
    from cosearch.results import load_run as load_run

_HOMES = {
    "search": "cosearch.api",
    "load_run": "cosearch.results",
    "load_agent": "cosearch.api",
    "predict": "cosearch.api",
    "measure": "cosearch.api",
    "Run": "cosearch.results",
    "Agent": "cosearch.deploy.player",
    "Prediction": "cosearch.results",
    "OperationCost": "cosearch.results",
    "MeasuredTable": "cosearch.results",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cosearch' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
