"""Verbs of ``python -m accel_models``: evaluate, search, list, check. Results on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from latency_tables.errors import ConfigError, CosearchError, DesignError, InfeasibleCandidateError, short
from latency_tables.text.spans import check_span, span_text
from latency_tables.text.terminal import plain_streams, say, system_fault
from latency_tables.text.writing import check_destination

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Evaluate and search accelerators for a fixed network; everything here is modelled, not measured.",
)


ONE_SEARCH = ("network", "platform", "chunks", "objective", "seed", "out", "beside")  # options of search without --benchmark
SAID_FROM_S = 120.0  # a search that is expected to take longer says so
METHOD_WORDS = {  # in the order of searching.benchmark.ALL_METHODS, which imports torch
    "random": "uniform samples",
    "evolution": "forty parents, mutation only",
    "evolution+cuts": "evolution of the sides with exact cuts and dataflows",
    "gumbel": "hard Gumbel samples, log cost minus running mean, rate 3e-2",
    "das": "hard Gumbel samples as released with Auto-NBA: no baseline, rate 1e-7",
    "gradient": "continuous log2 knobs and mixed option costs, projected on the way",
    "gradient+polish": "the same, then a discrete polish",
}


class Objective(StrEnum):
    """What is minimised."""

    latency = "latency"
    interval = "interval"
    energy = "energy"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Goal = Annotated[
    Objective,
    typer.Option(
        help="latency: one frame in flight, as for an agent in one environment; interval: a "
        "full pipeline (frames per second); energy: joules a frame."
    ),
]


@app.command("evaluate", epilog="Example: python -m accel_models evaluate edge-npu impala")
def evaluate_command(
    design: Annotated[str, typer.Argument(help="Name of a shipped design, or a JSON file.")],
    network: Annotated[str, typer.Argument(help="Name of a shipped network, or a JSON or CSV file of layers.")],
    objective: Goal = Objective.latency,
    as_json: Json = False,
) -> None:
    """What a network costs on a design, layer by layer."""
    from accel_models import printing
    from accel_models.design import load_design
    from accel_models.evaluation import evaluate
    from accel_models.layers import load_layers

    accelerator = load_design(design)
    try:
        result = evaluate(load_layers(network), accelerator, objective.value)
    except InfeasibleCandidateError as error:
        raise DesignError(f"{error}") from error  # exit code 2: another design or network has to be named
    over = result.resources.over(accelerator.platform)
    if as_json:
        say(json.dumps({"design": accelerator.name, "network": network, **result.to_dict(), "over_limits": over}))
        return
    printing.network_report(accelerator, result)
    for fault in over:
        say(f"over the limits of {accelerator.platform.name}: {fault}")


@app.command(
    "search",
    epilog="Examples: python -m accel_models search impala --platform zc706   |   "
    "python -m accel_models search --benchmark --seeds 6",
)
def search_command(
    context: typer.Context,
    network: Annotated[str, typer.Argument(help="Name of a shipped network, or a JSON or CSV file of layers.")] = "impala",
    platform: Annotated[str, typer.Option(help="Design (name or JSON file) whose platform sets limits and formats.")] = "zc706",
    chunks: Annotated[int, typer.Option(help="Pipeline stages; more of them help the interval, not the latency.")] = 1,
    objective: Goal = Objective.latency,
    evaluations: Annotated[int, typer.Option(help="Relaxed and exact evaluations together.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Same seed, same design.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the design found to this JSON file.")] = None,
    beside: Annotated[bool, typer.Option("--compare/--no-compare", help="Run the other methods as well.")] = True,
    benchmark: Annotated[bool, typer.Option("--benchmark", help="Compare methods on four pipeline problems instead.")] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each method; only for --benchmark.")] = 6,
    methods: Annotated[str, typer.Option(help="Methods of --benchmark, separated by commas.")] = ",".join(METHOD_WORDS),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Search the accelerator for a fixed network within the limits of a platform."""
    from accel_models import printing
    from accel_models.design import load_design, save_design
    from accel_models.layers import load_layers
    from accel_models.searching.methods import SECONDS_PER_EVALUATION, MethodRow, compare_methods, plan
    from accel_models.searching.search import search_design

    if evaluations < 1 or seeds < 1:
        raise ConfigError(f"evaluations and seeds must be at least 1, got {evaluations} and {seeds}")
    if benchmark:
        _refuse(context, ONE_SEARCH, "with --benchmark, whose problems are given")
        _benchmark(methods.split(","), seeds, evaluations, dry_run, as_json)
        return
    _refuse(context, ("seeds", "methods"), "without --benchmark")
    if out is not None:
        check_destination(out, network, platform)
    runs = len(METHOD_WORDS) - 1 if beside else 1
    expected_s = check_span(f"evaluations={evaluations}", runs * evaluations, SECONDS_PER_EVALUATION)
    base, layers = load_design(platform), load_layers(network)
    if dry_run:
        text = plan(base, layers, network, chunks=chunks, objective=objective.value, evaluations=evaluations, beside=beside)
        say(json.dumps(text) if as_json else "\n".join(f"{key}: {value}" for key, value in text.items()))
        return
    if expected_s > SAID_FROM_S:
        say(f"expected time: {span_text(expected_s)}", error=True)
    with printing.progress_bar("search", evaluations) as update:
        searched = search_design(
            layers, base, seed, chunks=chunks, objective=objective.value, evaluations=evaluations, progress=update
        )
    rows: list[MethodRow] = []
    if beside:
        with printing.progress_bar("other methods", len(METHOD_WORDS) - 2) as update:
            rows = compare_methods(layers, base, searched, seed, chunks, objective.value, evaluations, update)
    if out is not None:
        save_design(searched.design, out)
    if as_json:
        say(
            json.dumps(
                {
                    "design": searched.design.to_dict(),
                    "chunk_of": list(searched.chunk_of),
                    "evaluations": searched.evaluations,
                    "objective": objective.value,
                    "seed": seed,
                    **searched.result.to_dict(),
                    "methods": [asdict(row) for row in rows],
                }
            )
        )
        return
    printing.network_report(searched.design, searched.result)
    printing.method_table(rows, objective.value)
    if out is not None:
        say(f"design written to {out}")


def _refuse(context: typer.Context, names: Sequence[str], where: str) -> None:
    """Refuse what was typed and would have no effect."""
    sources = {p.name: context.get_parameter_source(p.name) for p in context.command.params if p.name in names}
    typed = [p for p in context.command.params if getattr(sources.get(p.name), "name", "") == "COMMANDLINE"]
    if typed:
        words = ", ".join("/".join([*p.opts, *p.secondary_opts]) for p in typed)
        raise ConfigError(f"no effect {where}: {words}; leave it out")


def _benchmark(methods: list[str], seeds: int, evaluations: int, dry_run: bool, as_json: bool) -> None:
    from accel_models import printing
    from accel_models.searching.benchmark import BEST_KNOWN, as_markdown, check_methods, run_benchmark
    from accel_models.searching.methods import SECONDS_PER_EVALUATION

    check_methods(methods, evaluations)
    problems = len(BEST_KNOWN)
    words = f"--benchmark with evaluations={evaluations} and seeds={seeds}"
    expected_s = check_span(words, problems * len(methods) * evaluations * seeds, SECONDS_PER_EVALUATION)
    if dry_run:
        text = {
            "problems": problems,
            "seeds": seeds,
            "evaluations": evaluations,
            "methods": methods,
            "expected_s": round(expected_s),
        }
        words = f"{problems} problems, {seeds} seeds, {evaluations} evaluations each; methods: {', '.join(methods)}"
        say(json.dumps(text) if as_json else words)
        return
    rows = run_benchmark(methods, seeds, evaluations, printing.benchmark_progress)
    if as_json:
        say(json.dumps([{**vars(row), "ratios": list(row.ratios), "mean": row.mean} for row in rows]))
    else:
        say(as_markdown(rows))


class Kind(StrEnum):
    """What can be listed."""

    designs = "designs"
    networks = "networks"
    methods = "methods"


@app.command("list", epilog="Example: python -m accel_models list designs")
def list_command(kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.designs, as_json: Json = False) -> None:
    """Designs, networks or search methods."""
    from accel_models.design import design_names, load_design
    from accel_models.layers import load_layers, network_names

    if kind is Kind.designs:
        designs = [load_design(name) for name in design_names()]
        rows: list[dict[str, object]] = [
            {"name": d.name, "description": d.platform.description, "sources": d.platform.sources} for d in designs
        ]
    elif kind is Kind.networks:
        rows = []
        for name in network_names():
            layers = load_layers(name)
            macs = sum(layer.macs for layer in layers)
            rows.append({"name": name, "description": f"{len(layers)} layers, {macs / 1e6:.2f} million multiply-accumulates"})
    else:
        rows = [{"name": name, "description": words} for name, words in METHOD_WORDS.items()]
    say(json.dumps(rows) if as_json else "\n".join(f"{row['name']:<16} {row['description']}" for row in rows))


@app.command("check", epilog="Example: python -m accel_models check --reference zigzag accel_models/data/oracle_zigzag.csv")
def check_command(
    rows_file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Rows of the reference.")],
    reference: Annotated[str, typer.Option(help="scalesim, zigzag or timeloop.")],
    out: Annotated[Path | None, typer.Option(help="Write both values and the errors of each row to this CSV.")] = None,
    layers: Annotated[Path | None, typer.Option(help="Shapes of the named layers, if not layers.csv beside the file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the equations with rows of another simulator."""
    from accel_models import printing
    from accel_models.check import EXACT_MEANS, compare, shapes_of
    from accel_models.references.rows import statistics, write_rows

    if out is not None:
        check_destination(out, rows_file, shapes_of(rows_file, layers))
    compared = compare(reference, rows_file, layers)
    errors = statistics(compared)
    if out is not None:
        write_rows(compared, out)
    if as_json:
        say(json.dumps({"reference": reference, "exact_means": EXACT_MEANS[reference], **asdict(errors)}))
    else:
        printing.check_report(reference, EXACT_MEANS[reference], errors)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: 0 done, 1 failed, 2 wrong request, 130 interrupted."""
    plain_streams()
    try:
        app(args=arguments, standalone_mode=True)
    except CosearchError as error:
        say(f"error: {short(error)}", error=True)
        raise SystemExit(error.exit_code) from error
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        say(f"error: {system_fault(error)}", error=True)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
