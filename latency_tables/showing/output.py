"""What the commands print: summaries of tables, and the figures of certificates side by side."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath

from latency_tables.certificate import Accuracy
from latency_tables.table import Table
from latency_tables.text import markdown

AS_GIVEN = ("--description", "--tvm-target")  # whose values may hold a slash and are no files
LISTS = ("record", "predicted_s", "measured_s")
METHODS = {
    "rows": "blocks in chains",
    "single_operations": "single operations",
    "flops": "FLOPs",
    "repeat": "measured twice",
}


def summary(table: Table) -> dict[str, object]:
    """A table in one object: identity, size, and its certificate without the single networks."""
    proof = None if table.certificate is None else table.certificate.record
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
    """The command line of this process, of files their names alone and without options of ssh, which name keys and users."""
    words, option = [], ""
    for word in sys.argv[1:]:
        start, value = "", word
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            start = option + equals
        if option != "--ssh-option":
            words.append(start + (value if option in AS_GIVEN else PureWindowsPath(value).name))
    return shlex.join(["python", "-m", "latency_tables", *words])


@dataclass(frozen=True)
class CertificateRow:
    """How well one table predicts one sample of networks in one way.

    Attributes:
        table: whose certificate it is.
        networks: ``range`` or ``uniform``.
        method: how the networks were predicted, in words.
        accuracy: how well.
    """

    table: Table
    networks: str
    method: str
    accuracy: Accuracy

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object."""
        device = self.table.device
        return {
            "device": device.name,
            "runtime": device.runtime,
            "dtype": device.dtype,
            "threads": device.threads,
            "provenance": self.table.provenance,
            "created_utc": self.table.header.get("created_utc"),
            "networks": self.networks,
            "count": self.accuracy.networks,
            "method": self.method,
            **self.accuracy.figures(),
        }


def certificate_rows(tables: Sequence[Table]) -> list[CertificateRow]:
    """One row for each table that has a certificate, sample of networks and way of predicting them."""
    rows = []
    for table in tables:
        proof = table.certificate
        samples = {} if proof is None else {"range": proof.sample, "uniform": proof.uniform}
        for name, sample in samples.items():
            if sample is not None:
                ways = {"rows": sample.accuracy, **sample.others}
                rows += [CertificateRow(table, name, words, ways[way]) for way, words in METHODS.items() if way in ways]
    return rows


def certificate_markdown(rows: Sequence[CertificateRow]) -> str:
    """The figures as a table for a README."""
    titles = (
        *("device", "runtime", "dtype", "threads", "networks", "predicted from"),
        *("MAPE", "within 5 %", "within 10 %", "tau", "bias"),
    )
    lines = []
    for row in rows:
        device, proof = row.table.device, row.accuracy
        tau = "-" if proof.kendall_tau is None else f"{proof.kendall_tau:.3f}"
        cells = [device.name, device.runtime, device.dtype, str(device.threads), f"{proof.networks} {row.networks}", row.method]
        cells += [f"{proof.mape:.2%}", f"{proof.within_5:.0%}", f"{proof.within_10:.0%}", tau, f"{proof.bias:+.2%}"]
        lines.append([cell.replace("%", " %") for cell in cells])
    return "\n".join(markdown.table(titles, lines))
