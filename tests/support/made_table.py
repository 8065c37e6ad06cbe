"""A made-up table of this machine for the space of a small run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cosearch.config.run import resolve
from cosearch.planning.space import make_space
from cosearch.space.network import reference_agents
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile, write_table


def made_table(path: Path, words: Sequence[str], dtype: str = "float32", *rest: Any, **others: Any) -> Path:
    """A synthetic table for the space of these words; the rest as for :func:`table_of`."""
    space = make_space(resolve(overrides=words))
    agents = reference_agents(space.frame_shape, space.num_actions).values()
    ops = {dataclasses.replace(op, dtype=dtype) for op in (*space.all_ops(), *(op for blocks in agents for op in blocks))}
    return table_of(path, ops, dtype, *rest, **others)


def table_of(
    path: Path,
    ops: Iterable[OpSpec],
    dtype: str = "float32",
    runtime: str = "onnxruntime",
    threads: int = 1,
    *,
    device: str = "this",
    mac_s: float = 1e-9,
) -> Path:
    """A synthetic table of these blocks: 1 us and so many seconds a MAC for each, 10 us for a call."""
    header = {
        "schema": 1,
        "provenance": "synthetic",
        "device": {"name": device, "description": "made up", "runtime": runtime, "dtype": dtype, "threads": threads},
        "calibration": {"overhead_s": 1e-5, "scale": 1.0, "interval_factors": [0.9, 1.1]},
    }
    write_table(path, TableFile(header, {op.key: Row(op.key, 1e-6 + op.macs * mac_s, None) for op in ops}, None))
    return path
