"""The verbs ``bench ...``: what the tabular benchmark holds, one query, one search on it, its page, and its extension."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cosearch.cli.commands import ClusterAddress, Json, OtherTorch, Quiet, app, emit, resume_hint

bench = typer.Typer(
    help="The tabular benchmark of convolutional RL agents: look up, run a search on it, extend it.",
    epilog="`cosearch bench info` | `cosearch bench run --strategy random --task minatar:breakout --device pixel-3 --seed 0`",
)
app.add_typer(bench, name="bench")

DEVICES = ("pixel-3", "raspberry-pi-4")
Devices = Annotated[list[str] | None, typer.Option(help=f"May be given several times; default: {', '.join(DEVICES)}.")]
Searches = Annotated[int, typer.Option(min=2, help="Searches of each strategy: seeds 0 .. N - 1.")]
Page = Annotated[Path | None, typer.Option(help="Markdown file to write; default: print.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Folder of the tables; default: the shipped ones.")]
Task = Annotated[str, typer.Option(help="Environment; `cosearch bench info`.")]
Device = Annotated[str, typer.Option(help="Device whose latencies count; `cosearch bench info`.")]
Target = Annotated[
    float | None, typer.Option("--latency-target-ms", help="Upper bound in ms; default: half of the space is within it.")
]


@bench.command(epilog="`cosearch bench info` | `cosearch bench info --json`")
def info(data: Data = None, as_json: Json = False) -> None:
    """What the benchmark holds: architectures, tasks, train seeds, devices, strategies."""
    from cosearch.bench.report import describe, describe_text

    result = describe(_folder(data))
    emit(result, as_json, describe_text(result))


@bench.command(epilog="`cosearch bench query 0 1 2 0 1 0 --task minatar:breakout --device pixel-3`")
def query(
    choices: Annotated[list[int], typer.Argument(help="One candidate index a choice point.")],
    task: Task = "minatar:breakout",
    device: Annotated[str | None, typer.Option(help="Also the latency on this device.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What is known of one architecture: scores of each train seed, curve, latency."""
    from cosearch.bench.benchmark import Benchmark
    from cosearch.bench.report import lookup

    found = lookup(Benchmark(task, _folder(data)), choices, device)
    emit(found.to_json(), as_json, found.text())


@bench.command(epilog="`cosearch bench run --strategy evolution --task minatar:breakout --device pixel-3 --seed 0`")
def run(
    strategy: Annotated[str, typer.Option(help="A proposal strategy, reinforce, or a control; `cosearch bench info`.")],
    task: Task = "minatar:breakout",
    device: Device = "pixel-3",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    queries: Annotated[int, typer.Option(min=1, help="Scores that the search may ask for.")] = 20,
    latency_target_ms: Target = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One search on the table: regret and rank of what it found, in seconds."""
    from cosearch.bench.benchmark import Benchmark
    from cosearch.bench.report import outcome_text
    from cosearch.bench.searches import run_search
    from cosearch.planning.builtins import load_builtins

    load_builtins()
    target_s = None if latency_target_ms is None else latency_target_ms / 1e3
    outcome = run_search(Benchmark(task, _folder(data)), strategy, device, target_s=target_s, seed=seed, queries=queries)
    emit(outcome.to_json(), as_json, outcome_text(outcome))


@bench.command(epilog="`cosearch bench leaderboard --seeds 20 --out bench.md`")
def leaderboard(
    device: Devices = None,
    seeds: Searches = 20,
    queries: Annotated[int, typer.Option(min=1, help="Scores that each search may ask for.")] = 20,
    out: Page = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Regret and rank of every strategy on every task, as a page."""
    from cosearch.bench.leaderboard import leaderboard_page, standings
    from cosearch.planning.builtins import load_builtins

    _check_page(out)
    load_builtins()
    devices = device or list(DEVICES)
    result = standings(_folder(data), devices, range(seeds), queries)
    page = leaderboard_page(result)
    _write_page(out, page)
    emit(result.to_json(), as_json, page if out is None else str(out))


@bench.command(epilog="`cosearch bench budgets --queries 5 --queries 20 --queries 80 --out budgets.md`")
def budgets(
    device: Devices = None,
    seeds: Searches = 20,
    queries: Annotated[
        list[int] | None, typer.Option(min=1, help="A budget; may be given several times; default: 5, 10, 20, 40.")
    ] = None,
    out: Page = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Regret of every strategy against its budget, as a page."""
    from cosearch.bench import budgets as spent
    from cosearch.bench.benchmark import benchmarks
    from cosearch.planning.builtins import load_builtins

    _check_page(out)
    load_builtins()
    devices, counts = device or list(DEVICES), sorted(set(queries or [5, 10, 20, 40]))
    boards = [spent.budgets(table, name, range(seeds), counts) for table in benchmarks(_folder(data)) for name in devices]
    page = spent.budgets_page(boards)
    _write_page(out, page)
    emit([board.to_json() for board in boards], as_json, page if out is None else str(out))


@bench.command(epilog="`cosearch bench transfer --device pixel-3 --device raspberry-pi-4 --out transfer.md`")
def transfer(
    device: Annotated[list[str] | None, typer.Option(help="May be given several times; default: all that price it.")] = None,
    out: Page = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Is what is best on one device wrong on the next? Each device's best network on each other device, without any search."""
    from cosearch.bench.benchmark import benchmarks
    from cosearch.bench.transfer import transfer_page, transfers
    from cosearch.planning.builtins import load_builtins

    _check_page(out)
    load_builtins()
    rows = []
    for benchmark in benchmarks(_folder(data)):
        rows += transfers(benchmark, device or benchmark.devices())
    page = transfer_page(rows, device or ())
    _write_page(out, page)
    emit([row.to_json() for row in rows], as_json, page if out is None else str(out))


@bench.command(epilog="`cosearch bench search --strategy reinforce --seeds 20 --runs runs/bench-searches`")
def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of the search's configuration.")] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="May be given several times; default: reinforce.")] = None,
    task: Task = "minatar:breakout",
    device: Device = "pixel-3",
    first_seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=2, help="Searches of each strategy.")] = 20,
    latency_target_ms: Target = None,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Gets one run folder a search; the same command goes on.")] = Path(
        "runs/bench-searches"
    ),
    out: Page = None,
    data: Data = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Searches with shared weights, a minute or two each, their networks looked up: beside random search of equal steps."""
    from cosearch.bench.benchmark import Benchmark
    from cosearch.bench.shared_weights import SharedSearch, beside, beside_page
    from cosearch.cli.progress import TerminalProgress
    from cosearch.planning.builtins import load_builtins
    from latency_tables.text.writing import check_folder

    _check_page(out)
    check_folder(runs)
    resume_hint.set(("the same command", runs))
    load_builtins()
    target_s = None if latency_target_ms is None else latency_target_ms / 1e3
    benchmark, said = Benchmark(task, _folder(data)), tuple(words or ())
    searches = [SharedSearch(benchmark, name, device, said, target_s) for name in strategy or ["reinforce"]]
    progress = TerminalProgress(quiet)
    try:
        result = beside(searches, range(first_seed, first_seed + seeds), runs, progress)
    finally:
        progress.close()
    page = beside_page([result])
    _write_page(out, page)
    emit(result.to_json(), as_json, page if out is None else str(out))


@bench.command(
    epilog="`cosearch bench extend --out runs/bench` | `cosearch bench extend --out runs/bench --task minatar:asterix`"
)
def extend(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results; the same command goes on with it.")],
    task: Annotated[list[str] | None, typer.Option(help="May be given several times; default: all.")] = None,
    networks: Annotated[int | None, typer.Option(min=1, help="Train at most so many here; default: all.")] = None,
    cluster: ClusterAddress = "",
    other_torch: OtherTorch = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train what the table lacks. Stop it at any time; several processes share one folder. Then `cosearch bench pack`."""
    from cosearch.bench import generate, settings
    from cosearch.fleet.cluster import Cluster
    from latency_tables.text.writing import check_folder

    where = Cluster(cluster, other_torch).check()
    check_folder(out)
    resume_hint.set(("the same command", out))

    def tell(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    if where.address:
        trained = generate.extend_on_cluster(out, task or settings.TASKS, tell, where, networks)
    else:
        trained = generate.extend(out, task or settings.TASKS, tell, networks)
    emit({"trained": trained, "folder": str(out)}, as_json, f"{trained} networks trained; {out}")


@bench.command(epilog="`cosearch bench pack runs/bench --out tables` then `cosearch bench info --data tables`")
def pack(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of `cosearch bench extend --out DIR`.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that gets one table a task.")],
    task: Annotated[list[str] | None, typer.Option(help="May be given several times; default: all that have results.")] = None,
    as_json: Json = False,
) -> None:
    """Make tables of the networks that are finished."""
    from cosearch.bench import generate, settings, table
    from latency_tables.errors import RequestError
    from latency_tables.text.writing import check_destination

    for name in task or settings.TASKS:
        check_destination(table.table_path(name, out))
    chosen = task or [name for name in settings.TASKS if generate.results_path(results, name).exists()]
    if not chosen:
        raise RequestError(f"{results} has no results of the benchmark: `cosearch bench extend --out {results}` makes them")
    made = []
    for name in chosen:
        packed = table.pack(results, name)
        table.write_table(packed, table.table_path(name, out))
        made.append({"task": name, "networks": len(packed.results), "partial": packed.partial})
    text = "\n".join(f"{row['task']}: {row['partial'] or 'whole'}" for row in made)
    emit({"tables": made}, as_json, text)


def _check_page(out: Path | None) -> None:
    """Raise now where a page could not be written after the work."""
    from latency_tables.text.writing import check_destination

    if out is not None:
        check_destination(out)


def _write_page(out: Path | None, page: str) -> None:
    from latency_tables.text.writing import make_folder, write_bytes_atomic

    if out is not None:
        make_folder(out.parent)
        write_bytes_atomic(out, page.encode())


def _folder(data: Path | None) -> Path:
    from cosearch.bench.table import DATA

    return DATA if data is None else data
