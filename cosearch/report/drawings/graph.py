"""The derived network as a drawing where it has branches: one box a block, one arrow for each block that another one reads.

A block stands one level below the lowest of those that it reads (networkx's topological generations); an arrow that passes
levels is bent, so that it does not hide behind the boxes between.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx
from matplotlib.patches import FancyArrowPatch

from cosearch.report.architecture import Cell
from cosearch.report.data import Run
from cosearch.report.drawings.plots import Plot
from cosearch.report.drawings.svg import AGENT, INK, LINE, MUTED, SURFACE, figure, inline_svg, short
from cosearch.report.format import time_text
from latency_tables.errors import ShapeError

LEVEL_IN = 0.42  # inches between two levels


def graph_plot(run: Run, boxes: Sequence[Cell]) -> Plot | None:
    """The blocks and what each reads; None for a chain, and where the file's wiring is not that of its blocks.

    Args:
        run: with its ``architecture.json``.
        boxes: of ``architecture.cells``, in order of execution; identities are no blocks of the network.
    """
    wiring = None if run.architecture is None else run.architecture.wiring
    blocks = [box for box in boxes if box.key is not None]
    if not wiring or len(wiring) != len(blocks):
        return None
    try:
        places = positions(wiring)
    except ShapeError:
        return None
    depth, width = 1 + max(-y for _, y in places), max(abs(x) for x, _ in places)
    with figure(height=LEVEL_IN * depth + 0.3) as (drawing, (axes,)):
        for index, inputs in enumerate(wiring):
            for source in inputs:
                (x0, y0), (x1, y1) = places[source], places[index]
                bend = 0.0 if y0 - y1 == 1 else 0.35 if x0 >= x1 else -0.35
                axes.add_patch(
                    FancyArrowPatch(
                        (x0, y0 - 0.27),
                        (x1, y1 + 0.27),
                        connectionstyle=f"arc3,rad={bend}",
                        color=MUTED,
                        arrowstyle="-|>",
                        mutation_scale=7,
                        linewidth=0.9,
                        shrinkA=0,
                        shrinkB=0,
                    )
                )
        for (x, y), block in zip(places, blocks):
            cost = "" if block.latency_s is None else f" · {time_text(block.latency_s)}"
            edge = AGENT if block.point else LINE
            axes.text(
                x,
                y,
                short(block.operation, 14) + cost,
                ha="center",
                va="center",
                fontsize=7.5,
                color=INK,
                bbox={"boxstyle": "round,pad=0.3", "facecolor": SURFACE, "edgecolor": edge, "linewidth": 1.0},
            )
        axes.set_xlim(-width - 0.75, width + 0.75)
        axes.set_ylim(-depth + 0.4, 0.6)
        axes.set_axis_off()
        svg = inline_svg(drawing, "graph", f"{len(blocks)} blocks of the network and what each of them reads")
    return Plot("Blocks", svg, "From the frames (top) to the actions; framed in colour: what the search chose.")


def positions(wiring: Sequence[Sequence[int]]) -> list[tuple[float, float]]:
    """Where each block stands: ``(x, y)``, levels downwards from 0, the blocks of a level centred around 0.

    Args:
        wiring: for each block the indices of the blocks that it reads.

    Raises:
        ShapeError: a block reads one that is not there, or itself in the end.
    """
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(range(len(wiring)))
    graph.add_edges_from((source, index) for index, inputs in enumerate(wiring) for source in inputs)
    if len(graph) > len(wiring) or not networkx.is_directed_acyclic_graph(graph):
        raise ShapeError(f"the wiring of {len(wiring)} blocks is no graph of theirs without cycles: {list(wiring)}")
    places: dict[int, tuple[float, float]] = {}
    for level, members in enumerate(networkx.topological_generations(graph)):
        for column, index in enumerate(sorted(members)):
            places[index] = (column - (len(members) - 1) / 2, -float(level))
    return [places[index] for index in range(len(wiring))]
