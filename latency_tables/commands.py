"""The command line of latency tables: results on stdout, progress on stderr, exit codes 0, 1, 2, 130.

Only reads options and prints; the work is in ``measuring``, ``estimating``, ``checks``, ``compare`` and ``draw``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from latency_tables.errors import CosearchError, TableError, short
from latency_tables.text.spans import span_text
from latency_tables.text.terminal import plain_streams, say, system_fault
from latency_tables.text.terminal import show as show_table
from latency_tables.text.writing import check_destination

EXAMPLES = """Examples:

python -m latency_tables list

python -m latency_tables measure --device this --out this.jsonl --dry-run

python -m latency_tables show jetson

python -m latency_tables check jetson --json

python -m latency_tables diff jetson jetson"""

app = typer.Typer(
    help=__doc__.splitlines()[0],
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Result = TypeVar("Result")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result for a machine.")]


@app.command(epilog="Example: python -m latency_tables measure --device this --out this.jsonl --dry-run")
def measure(
    out: Annotated[Path, typer.Option(help="The table file to write.")],
    device: Annotated[str, typer.Option(help="Name of the device in the table.")] = "this",
    description: Annotated[str, typer.Option(help="What it is, in words; default: what the machine says.")] = "",
    worklist: Annotated[
        list[str] | None, typer.Option(help="Shipped work list, or a JSON file; repeatable. [chain, references]")
    ] = None,
    op: Annotated[
        list[str] | None, typer.Option(help="Only this operation (a key), added to the table at --out; repeatable.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="onnxruntime, torch or tvm.")] = "onnxruntime",
    provider: Annotated[str, typer.Option(help="Execution provider of onnxruntime.")] = "CPUExecutionProvider",
    dtype: Annotated[str, typer.Option(help="float32 or int8 (quantised, QDQ).")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads of the runtime.")] = 1,
    batch: Annotated[int, typer.Option(help="Frames per inference.")] = 1,
    host: Annotated[str | None, typer.Option(help="Measure on user@board over ssh instead of here.")] = None,
    ssh_option: Annotated[list[str] | None, typer.Option(help="Further option of ssh, such as --ssh-option=-p2222.")] = None,
    python: Annotated[str, typer.Option(help="The board's Python.")] = "python3",
    tracker: Annotated[str | None, typer.Option(help="Measure through a TVM RPC tracker, host:port; runtime tvm.")] = None,
    tracker_key: Annotated[str, typer.Option(help="The board's key at the tracker.")] = "board",
    tvm_target: Annotated[str | None, typer.Option(help="What TVM compiles for, its JSON object.")] = None,
    compiler: Annotated[str | None, typer.Option(help="Links TVM's code for the board: aarch64-linux-gnu-g++.")] = None,
    budget: Annotated[float, typer.Option(help="Seconds after which no new round starts.")] = 240.0,
    rounds: Annotated[int, typer.Option(help="Visits of each model, at least.")] = 9,
    max_rounds: Annotated[int | None, typer.Option(help="Visits of each model, at most. [40, or --rounds if more]")] = None,
    tolerance: Annotated[float, typer.Option(help="Relative half-width of its interval at which a row has converged.")] = 0.02,
    energy_seconds: Annotated[float, typer.Option(help="Power reading a model where the board has a sensor; 0: none.")] = 2.0,
    period_s: Annotated[float | None, typer.Option(help="Also call whole networks once in so many seconds (0.02).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and order.")] = 0,
    nchw: Annotated[bool, typer.Option("--nchw", help="Keep the plain layout on x86, as on Arm.")] = False,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="The target is emulated: the table is no measurement of a board.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Replace the table at --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the expected time.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make the table of a device: this machine, or a board over ssh or TVM RPC. Goes on where it was interrupted.

    Times are in seconds.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from latency_tables.measuring import job
    from latency_tables.measuring.remote import Location
    from latency_tables.measuring.rpc import read_tvm_target
    from latency_tables.measuring.settings import Settings
    from latency_tables.showing.draw import caption
    from latency_tables.showing.output import command_line, summary
    from latency_tables.table import load_table

    settings = Settings(
        threads=threads,
        provider=provider,
        nchw=nchw,
        min_rounds=rounds,
        max_rounds=max(rounds, 40) if max_rounds is None else max_rounds,
        tolerance=tolerance,
        budget_s=budget,
        seed=seed,
    )
    request = job.MeasureRequest(
        out=out,
        device=device,
        description=description,
        worklists=tuple(worklist or ()),
        keys=tuple(op or ()),
        runtime=runtime,
        dtype=dtype,
        batch=batch,
        provenance="synthetic" if synthetic else "measured",
        again=again,
        energy_seconds=energy_seconds,
        period_s=period_s,
        location=Location(
            host=host,
            python=python,
            ssh_options=tuple(ssh_option or ()),
            tracker=tracker,
            tracker_key=tracker_key,
            tvm_target=read_tvm_target(tvm_target),
            compiler=compiler,
        ),
        settings=settings,
    )
    if dry_run:
        emit(job.preview(request), as_json, lambda plan: "\n".join(f"{name}: {value}" for name, value in plan.items()))
        return
    check_destination(out)
    plan = job.preview(request)
    least_s, most_s = (span_text(float(str(plan[f"expected_s_at_{end}"]))) for end in ("least", "most"))
    energy_s = float(str(plan["expected_energy_s_with_a_sensor"]))
    energy = f", and {span_text(energy_s)} of power readings where there is a sensor" if energy_s else ""
    span = least_s if least_s == most_s else f"{least_s} to {most_s}"
    say(f"{plan['models']} models, expected time: {span}{energy}", error=True)
    columns = (TextColumn("measuring"), BarColumn(), TextColumn("{task.completed}/{task.total} visits"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        try:
            job.run(
                request,
                command=command_line(),
                progress=lambda done, total, text: bar.update(task, completed=done, total=max(done, total)),
            )
        except KeyboardInterrupt as interruption:
            sys.stderr.write("interrupted; the same command goes on from here\n")
            raise typer.Exit(130) from interruption
    table = load_table(out)
    left_out = [row for row in table.rows.values() if row.latency_s is None]
    if left_out:
        first = left_out[0]
        say(
            f"{len(left_out)} of {len(table.rows)} rows could not be measured, the first {first.key} ({first.status}: "
            f"{str(first.details.get('reason', 'no reason recorded'))[:200]})",
            error=True,
        )
    emit({"out": str(out), **summary(table)}, as_json, lambda _: f"{out}: {len(table.rows)} rows, {caption(table)}")


@app.command()
def check(
    table: Annotated[str, typer.Argument(help="Table file or device name.")],
    worklist: Annotated[str | None, typer.Option(help="Also check that it covers this work list.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a table: format, checksum, coverage, plausibility, and what its certificate says."""
    from latency_tables.checks import check_table
    from latency_tables.devices import list_devices, load_any
    from latency_tables.showing.draw import caption
    from latency_tables.showing.output import summary
    from latency_tables.table import load_table
    from latency_tables.worklists import load_worklist

    try:
        loaded = load_any(table)
    except TableError as error:
        if as_json:
            sys.stdout.write(json.dumps({"valid": False, "error": str(error)}) + "\n")
        raise
    work = load_worklist(worklist).cast(dtype=loaded.device.dtype) if worklist else None
    others = [load_table(record.path) for record in list_devices() if record.name != loaded.device.name]
    findings = check_table(loaded, others=others, ops=work.ops if work else ())
    result = {
        "valid": True,
        **summary(loaded),
        "coverage": loaded.coverage(work.ops) if work else None,
        "findings": [{"rule": f.rule, "text": f.text, "keys": list(f.keys)} for f in findings],
    }
    lines = [f"{table}: valid, {len(loaded.rows)} rows, {caption(loaded)}"]
    lines += [f"  {f.rule}: {f.text}{': ' + ', '.join(f.keys[:3]) if f.keys else ''}" for f in findings] or ["  no findings"]
    emit(result, as_json, lambda _: "\n".join(lines))


@app.command()
def show(
    table: Annotated[str, typer.Argument(help="Table file or device name.")],
    png: Annotated[Path | None, typer.Option(help="Also draw a picture.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a table in the terminal, or draw it."""
    from latency_tables.checks import check_table
    from latency_tables.devices import load_any
    from latency_tables.showing.draw import draw_table, terminal_table
    from latency_tables.showing.output import summary

    if png is not None:
        check_destination(png)
    loaded = load_any(table)
    if png is not None:
        draw_table(loaded, png, findings=check_table(loaded))
    if as_json:
        rows = [
            {"key": r.key, "latency_s": r.latency_s, "energy_j": r.energy_j, "status": r.status} for r in loaded.rows.values()
        ]
        emit({**summary(loaded), "rows": rows, "header": loaded.header}, True, str)
    else:
        show_table(terminal_table(loaded))


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="Table file or device name.")],
    second: Annotated[str, typer.Argument(help="Table file or device name.")],
    as_json: JsonFlag = False,
) -> None:
    """Compare two tables: two devices, two runtimes or two dates."""
    from latency_tables.compare import compare_tables
    from latency_tables.devices import load_any
    from latency_tables.showing.draw import terminal_comparison

    one, two = load_any(first), load_any(second)
    comparison = compare_tables(one, two)
    if as_json:
        emit(comparison.to_dict(), True, str)
        return
    show_table(terminal_comparison(one, two, comparison))
    for name, (before, after) in comparison.changed.items():
        say(f"{name}: {before} -> {after}")


@app.command()
def fit(
    device: Annotated[str, typer.Option(help="Shipped specification, or a JSON file.")],
    out: Annotated[Path, typer.Option(help="The table file to write.")],
    worklist: Annotated[list[str] | None, typer.Option(help="Operations to write rows for; repeatable.")] = None,
    published: Annotated[Path | None, typer.Option(help="Fit the constants anew to these published rows (CSV).")] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace any file at --out, not only an estimate of it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make an estimated table from public specifications and published measurements."""
    from latency_tables.estimating.estimate import build_estimate
    from latency_tables.estimating.published import refit_spec
    from latency_tables.estimating.specification import load_spec
    from latency_tables.schema import write_new_table
    from latency_tables.showing.draw import caption
    from latency_tables.showing.output import summary
    from latency_tables.table import load_table
    from latency_tables.worklists import load_worklist

    check_destination(out, device, *(worklist or ()), *filter(None, [published]))
    ops = {op.key: op for name in worklist or ("chain", "references") for op in load_worklist(name).ops}
    spec = load_spec(device) if published is None else refit_spec(load_spec(device), published)
    write_new_table(out, build_estimate(spec, ops.values()), again=again)
    table = load_table(out)
    emit({"out": str(out), **summary(table)}, as_json, lambda _: f"{out}: {len(table.rows)} rows, {caption(table)}")


@app.command(
    name="import",
    epilog="`python -m latency_tables import mine.csv --device my-board --source 'my bench, 2026-05-01' --out my-board.jsonl`",
)
def import_command(
    file: Annotated[Path, typer.Argument(help="Latencies: CSV, or JSON of nn-Meter or once-for-all.")],
    device: Annotated[str, typer.Option(help="Name of the device that was timed.")],
    source: Annotated[str, typer.Option(help="Who measured it, how and when; it stays with the table.")],
    out: Annotated[Path, typer.Option(help="The table file to write.")],
    kind: Annotated[str, typer.Option("--format", help="csv, nn-meter or once-for-all.")] = "csv",
    description: Annotated[str, typer.Option(help="The device in words.")] = "",
    runtime: Annotated[str, typer.Option(help="What ran the operations, e.g. onnxruntime, tflite.")] = "unknown",
    dtype: Annotated[str, typer.Option(help="float32, float16 or int8.")] = "float32",
    threads: Annotated[int, typer.Option(min=1, help="Threads that ran them.")] = 1,
    overhead_us: Annotated[float, typer.Option(min=0.0, help="What an inference takes beside its operations, us.")] = 0.0,
    again: Annotated[bool, typer.Option("--again", help="Replace any file at --out, not only an import of it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a table of latencies that were measured elsewhere; it is checked like any other and says `imported`."""
    from latency_tables.checks import check_table
    from latency_tables.importing.table import ImportRequest, imported_table
    from latency_tables.schema import write_new_table
    from latency_tables.showing.draw import caption
    from latency_tables.showing.output import summary
    from latency_tables.table import load_table

    check_destination(out, file)
    request = ImportRequest(file, kind, device, description or device, runtime, dtype, threads, source, overhead_us * 1e-6)
    content, read = imported_table(request)
    write_new_table(out, content, again=again)
    table = load_table(out)
    findings = [f"{finding.rule}: {finding.text}" for finding in check_table(table)]
    result: dict[str, object] = {"out": str(out), **summary(table), "left_out": list(read.left_out), "findings": findings}
    lines = [f"{out}: {len(table.rows)} rows, {caption(table)}"]
    if read.left_out:
        lines.append(f"{len(read.left_out)} entries left out, the first: {read.left_out[0][:200]}")
    emit(result, as_json, lambda _: "\n".join([*lines, *findings]))


@app.command(name="list")
def list_command(as_json: JsonFlag = False) -> None:
    """List the shipped tables, and the specifications that ``fit`` knows."""
    from latency_tables.devices import list_devices
    from latency_tables.estimating.specification import list_specs

    records = [
        {
            "name": r.name,
            "description": r.description,
            "provenance": r.provenance,
            "runtime": r.runtime,
            "dtype": r.dtype,
            "threads": r.threads,
            "path": str(r.path),
        }
        for r in list_devices()
    ]
    lines = [
        f"{r['name']:<16} {r['provenance']:<10} {r['runtime']}-{r['dtype']}-{r['threads']}t  {r['description']}" for r in records
    ]
    emit(records, as_json, lambda _: "\n".join([*lines, f"specifications: {', '.join(list_specs())}"]))


@app.command()
def certificates(
    table: Annotated[list[str] | None, typer.Argument(help="Table files or device names; default: all that have one.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Figures of certificates side by side, for a README: table, single-operation sums, FLOPs, and measuring twice."""
    from latency_tables.devices import list_devices, load_any
    from latency_tables.showing.output import certificate_markdown, certificate_rows

    tables = [load_any(name) for name in table or [str(record.path) for record in list_devices()]]
    rows = certificate_rows(tables)
    emit([row.to_dict() for row in rows], as_json, lambda _: certificate_markdown(rows))


@app.command()
def evidence(
    folder: Annotated[Path, typer.Argument(help="Folder with the published latencies.")],
    as_json: JsonFlag = False,
) -> None:
    """Error of a roofline on block positions that it has not seen, for every published set of latencies."""
    from latency_tables.estimating.evidence import left_out, load_sets, markdown

    figures = [(published, left_out(published)) for published in load_sets(folder)]
    rows = [
        {"source": p.source, "device": p.device, "kind": p.kind, "batch": p.batch, "dropped": p.dropped, **asdict(errors)}
        for p, errors in figures
    ]
    emit(rows, as_json, lambda _: markdown(figures))


def main() -> None:
    """Run the command line; every error on purpose is one message and its exit code."""
    plain_streams()
    try:
        app(prog_name="python -m latency_tables")
    except CosearchError as error:
        say(f"error: {short(error)}", error=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        say(f"error: {system_fault(error)}", error=True)
        sys.exit(1)


def emit(result: Result, as_json: bool, text: Callable[[Result], str]) -> None:
    """Write a result to stdout, as JSON for a machine or as text."""
    say(json.dumps(result, sort_keys=True) if as_json else text(result))
