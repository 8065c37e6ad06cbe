"""What the commands print: summaries of tables, and the figures of certificates side by side."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latency_tables.table import Table

LISTS = ("record", "predicted_s", "measured_s")
FIGURES = ("mape", "within_5", "within_10", "kendall_tau", "bias")
METHODS = {
    "rows": "blocks in chains",
    "single_operations": "single operations",
    "flops": "FLOPs",
    "repeat": "measured twice",
}


def summary(table: Table) -> dict[str, Any]:
    """A table in one object: identity, size, and its certificate without the single networks."""
    proof = table.certificate
    return {
        "device": table.device.name,
        "description": table.device.description,
        "provenance": table.provenance,
        "runtime": table.device.runtime,
        "dtype": table.device.dtype,
        "threads": table.device.threads,
        "table_id": table.table_id,
        "rows": len(table.rows),
        "usable_rows": sum(r.latency_s is not None for r in table.rows.values()),
        "energy": any(r.energy_j is not None for r in table.rows.values()),
        "certificate": None if proof is None else {k: v for k, v in proof.items() if k not in LISTS},
    }


def command_line() -> str:
    """The command line of this process, without folders of this machine."""
    words = [Path(word).name if word.startswith(("/", "~")) else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", "latency_tables", *words])


def certificate_rows(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """One object for each table, sample of networks (``range`` or ``uniform``) and way of predicting them."""
    rows = []
    for table in tables:
        proof = table.certificate or {}
        device = table.device
        for sample, figures in (("range", proof), ("uniform", proof.get("uniform"))):
            for name, words in METHODS.items() if figures else ():
                part = figures if name == "rows" else figures.get(name)
                if part is not None:
                    rows.append(
                        {
                            "device": device.name, "runtime": device.runtime, "dtype": device.dtype, "threads": device.threads,
                            "provenance": table.provenance, "created_utc": table.header.get("created_utc"),
                            "networks": sample, "count": part.get("networks"), "method": words,
                            **{figure: part.get(figure) for figure in FIGURES},
                        }
                    )  # fmt: skip
    return rows


def certificate_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The figures as a table for a README."""
    lines = [
        "| runtime | dtype | threads | networks | predicted from | MAPE | within 5 % | within 10 % | tau | bias |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        tau = "-" if row["kendall_tau"] is None else f"{row['kendall_tau']:.3f}"
        cells = [row["runtime"], row["dtype"], str(row["threads"]), f"{row['count']} {row['networks']}", row["method"]]
        cells += [f"{row['mape']:.2%}", f"{row['within_5']:.0%}", f"{row['within_10']:.0%}", tau, f"{row['bias']:+.2%}"]
        lines.append("| " + " | ".join(cell.replace("%", " %") for cell in cells) + " |")
    return "\n".join(lines)
