"""Registers the strategies, spaces and environments that ship with the package, by importing their modules.

Every module below ``cosearch.strategies`` is imported, so that a new strategy is one new file.
"""

from __future__ import annotations

import importlib
import pkgutil

import cosearch.strategies

MODULES = (
    "cosearch.space.kinds.chain",
    "cosearch.space.kinds.macro",
    "cosearch.space.cells.cell",
    "cosearch.space.kinds.mlp",
    "cosearch.space.kinds.joined",
    "cosearch.space.kinds.hand_made",
    "cosearch.rl.env_families.procgen",
    "cosearch.rl.env_families.gym",
    "cosearch.rl.env_families.minatar",
    "cosearch.rl.env_families.quantum",
)


def load_builtins() -> None:
    """Import every module that registers something; harmless when called again."""
    for name in MODULES:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(cosearch.strategies.__path__, "cosearch.strategies."):
        importlib.import_module(module.name)
