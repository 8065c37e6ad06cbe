"""Accelerator models: designs as data, what a network costs on them (exact, and differentiable for searches), design search.

Rooms:

- ``engines``: the equations: cycles and accesses of an array, traffic between DRAM and buffers, the best buffer tile.
- ``searching``: search of a design for a network within the limits of a platform, and other methods to compare it with.
- ``references``: comparison of the equations with SCALE-Sim, Timeloop and ZigZag, row by row.

The files here put the rooms together: ``design`` and ``layers`` are the records, ``cost`` and ``evaluate`` what layers and
networks cost, ``assignment`` which chunk of a pipelined accelerator runs which layer, ``energy`` and ``resources`` the constants.

Results here are modelled. Cycles, access counts, DRAM bytes and energies are checked against SCALE-Sim, Timeloop and ZigZag;
absolute frames per second of an FPGA, timing closure and power are validated by nothing here.
"""

from accel_models.design import AccelDesign, Chunk, Platform, design_names, load_design, save_design
from accel_models.evaluate import BlockCost, NetworkResult, block_costs, evaluate
from accel_models.layers import LayerShape, from_blocks, load_layers, network_names
from accel_models.searching.search import FoundDesign, search_design

__all__ = [
    "AccelDesign",
    "BlockCost",
    "Chunk",
    "FoundDesign",
    "LayerShape",
    "NetworkResult",
    "Platform",
    "block_costs",
    "design_names",
    "evaluate",
    "from_blocks",
    "load_design",
    "load_layers",
    "network_names",
    "save_design",
    "search_design",
]
