"""SCALE-Sim 3.0.0: an im2col product on a systolic array, CALC mode (no stalls, no energy).

Cycles are counted from 1 (the tool prints the index of the last cycle). In output-stationary mode the tool adds the array's
sides to the output writes of every fold; that term is added here, for the comparison only.
"""

from __future__ import annotations

from pathlib import Path

import torch

from accel_models.engines.systolic import DATAFLOWS, Product, product_view, systolic_counts
from accel_models.layers import load_layers, stack
from accel_models.references.rows import ComparedRow, number, read_rows, whole
from latency_tables.errors import DesignError
from latency_tables.text.reading import shown

NEEDED = (
    "layer",
    "array_h",
    "array_w",
    "dataflow",
    "n_sub",
    "Sr",
    "Sc",
    "T",
    "cycles",
    "sram_ifmap_reads",
    "sram_filter_reads",
    "sram_ofmap_writes",
)

REFERENCE = ("sram_ifmap_reads", "sram_filter_reads", "sram_ofmap_writes")


def compare(path: str | Path, layers_file: str | Path) -> list[ComparedRow]:
    """Cycles and buffer accesses of every row.

    Args:
        path: rows in the format of ``data/oracle_scalesim.csv``.
        layers_file: shapes of the named layers; a layer that is not there is taken as the product that the row states.

    Raises:
        DesignError: a column is missing or not a number, or a row's product is not that of its layer.
    """
    rows = read_rows(path, NEEDED)
    shapes = {layer.name: layer for layer in load_layers(layers_file)}
    out = []
    for row in rows:
        where = f"{path}, line {row.number}"
        if row["dataflow"] not in DATAFLOWS:
            raise DesignError(f"{where}: dataflow must be one of {', '.join(DATAFLOWS)}, got {shown(row['dataflow'])}")
        stated = [number(row, name, where, low=1) for name in ("Sr", "Sc", "T", "n_sub")]
        height, width = whole(row, "array_h", where), whole(row, "array_w", where)
        cycles_ref = number(row, "cycles", where, low=1)
        reference = [cycles_ref, *(number(row, n, where) for n in REFERENCE)]
        option = DATAFLOWS.index(row["dataflow"])
        product = Product(*(torch.full((1, 3), value, dtype=torch.float64) for value in stated))
        if row["layer"] in shapes:
            own = product_view(stack([shapes[row["layer"]]]), "channels")
            derived = [float(part[0, option]) for part in (own.rows, own.cols, own.length, own.repeats)]
            if derived != stated:
                raise DesignError(f"{where}: Sr, Sc, T, n_sub are {stated}, its layer's shapes give {derived}")
        counts = systolic_counts(product, torch.tensor(float(height)), torch.tensor(float(width)))
        cycles, inputs, weights, outputs, folds = (
            float(part[0, option])
            for part in (counts.cycles, counts.input_reads, counts.weight_reads, counts.output_writes, counts.folds)
        )
        if row["dataflow"] == "os":
            outputs += folds * (height + width) * stated[3]
        ours = [cycles, inputs, weights, outputs]
        names = ("cycles_counted", "input_reads", "weight_reads", "output_writes")
        out.append(
            ComparedRow(
                name=f"{row['layer']} {height}x{width} {row['dataflow']}",
                exact=ours == reference,
                cycles=cycles,
                reference_cycles=reference[0],
                details=dict(zip(names, zip(ours, reference, strict=True), strict=True)),
            )
        )
    return out
