"""Accelerator models: designs as data, exact and differentiable costs, chunk pipelines, design search.

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
