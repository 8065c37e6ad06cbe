"""Accelerator models: designs as data, what a network costs on them (exact, and differentiable for searches), design search.

Rooms:

- ``engines``: the equations: cycles and accesses of an array, traffic between DRAM and buffers, the best buffer tile.
- ``searching``: search of a design for a network within the limits of a platform, and other methods to compare it with.
- ``references``: comparison of the equations with SCALE-Sim, Timeloop and ZigZag, row by row.

The files here put the rooms together: ``design`` and ``layers`` are the records, ``cost`` and ``evaluation`` what layers and
networks cost, ``assignment`` which chunk of a pipelined accelerator runs which layer, ``energy`` and ``resources`` the constants.

Results here are modelled. The systolic array's cycles and access counts are checked against SCALE-Sim, the loop-nest rules
against Timeloop and ZigZag; latency and energy of ``cost`` and ``evaluation``, which use both, are not checked row by row.
Absolute frames per second of an FPGA, timing closure and power are validated by nothing here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accel_models.design import AccelDesign as AccelDesign
    from accel_models.design import Chunk as Chunk
    from accel_models.design import Platform as Platform
    from accel_models.design import design_names as design_names
    from accel_models.design import load_design as load_design
    from accel_models.design import save_design as save_design
    from accel_models.evaluation import BlockCost as BlockCost
    from accel_models.evaluation import NetworkResult as NetworkResult
    from accel_models.evaluation import block_costs as block_costs
    from accel_models.evaluation import evaluate as evaluate
    from accel_models.layers import LayerShape as LayerShape
    from accel_models.layers import from_blocks as from_blocks
    from accel_models.layers import load_layers as load_layers
    from accel_models.layers import network_names as network_names
    from accel_models.searching.search import FoundDesign as FoundDesign
    from accel_models.searching.search import search_design as search_design

_HOMES = {
    "AccelDesign": "accel_models.design",
    "Chunk": "accel_models.design",
    "Platform": "accel_models.design",
    "design_names": "accel_models.design",
    "load_design": "accel_models.design",
    "save_design": "accel_models.design",
    "BlockCost": "accel_models.evaluation",
    "NetworkResult": "accel_models.evaluation",
    "block_costs": "accel_models.evaluation",
    "evaluate": "accel_models.evaluation",
    "LayerShape": "accel_models.layers",
    "from_blocks": "accel_models.layers",
    "load_layers": "accel_models.layers",
    "network_names": "accel_models.layers",
    "FoundDesign": "accel_models.searching.search",
    "search_design": "accel_models.searching.search",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562): most of them need torch, ``--help`` does not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'accel_models' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
