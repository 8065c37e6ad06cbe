"""The verb ``measure``: a device's table, measured on the machine of a cluster that has the board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosearch.cli.commands import ClusterAddress, OtherTorch, Quiet, app
from latency_tables.text.terminal import say


@app.command(
    epilog="`cosearch measure --cluster auto --board pixel-3 --out pixel-3.jsonl -- --device pixel-3 --host me@pixel`",
    context_settings={"ignore_unknown_options": True},
)
def measure(
    words: Annotated[list[str] | None, typer.Argument(metavar="[-- WORDS]", help="Options of latency_tables measure.")] = None,
    board: Annotated[str, typer.Option(help="Name that the board's machine gave it: ray start --resources.")] = "",
    out: Annotated[Path, typer.Option(help="The table file to write.")] = Path("table.jsonl"),
    cluster: ClusterAddress = "",
    other_torch: OtherTorch = False,
    quiet: Quiet = False,
) -> None:
    """Measure a table on the machine of a Ray cluster that has a board; here: `python -m latency_tables measure`."""
    from cosearch.deploy.on_cluster import measure_on
    from cosearch.fleet.cluster import Cluster
    from latency_tables.errors import RequestError
    from latency_tables.text.writing import check_destination

    if not cluster or not board:
        raise RequestError(
            "give --cluster ADDRESS and --board NAME; on this machine: `python -m latency_tables measure --out FILE`"
        )

    check_destination(out)

    def tell(line: str) -> None:
        if not quiet:
            say(line, error=True)

    measure_on(Cluster(cluster, other_torch).check(), board, words or (), out, tell)
    say(str(out))
