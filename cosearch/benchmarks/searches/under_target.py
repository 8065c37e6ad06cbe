"""Is the agent under its target where it runs? ``python -m cosearch.benchmarks.searches.under_target``.

24 whole runs: two targets x two seeds x two MinAtar games x three devices (this machine with ONNX Runtime in float32 and int8,
and with TVM). Search and retraining are real and very short, for latency does not depend on the weights: the scores mean
nothing. A target is a share of the way from the cheapest to the largest network of the space, both measured on the device first;
one above what the scores prefer without any would bind nothing. Of each run: what the derived agent measured before any repair,
and the deployed one after it; how many rounds that took; what is unused.

Results go into one JSON file, pair by pair; the same command goes on where it was interrupted, in the middle of a run, too.
Tables are measured first (minutes each); ``--shipped NAME`` takes the shipped ones of a machine of the same kind instead.
Wants a quiet machine: the load before each measurement is in the file.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from cosearch.benchmarks.results import check_same, program, save, saved
from cosearch.cli.progress import TerminalProgress
from cosearch.config.run import Config, resolve
from cosearch.deploy.readings import Meter
from cosearch.pipeline.local_table import table_of_this_machine
from cosearch.pipeline.run import resume_run, start_run
from cosearch.pipeline.target.repair import model_of, running_of
from cosearch.planning.plan import Plan, make_plan
from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import BEFORE
from cosearch.record.rundir import RunDir
from cosearch.space.derivation.derive import cheapest, discretise, within
from latency_tables.board.temporary import temporary_folder
from latency_tables.devices import find_table
from latency_tables.errors import RequestError
from latency_tables.schema import read_table, write_table

GAMES = ("minatar:breakout", "minatar:asterix")
IDENTITIES = ("onnxruntime-float32-1t", "onnxruntime-int8-1t", "tvm-float32-1t")
SHARES = (0.12, 0.22)  # of the way from the cheapest network to the largest: below what scores that learned little prefer
SEEDS = (0, 1)
WORDS = (
    "space.name=macro",
    "distill.teacher=none",
    "threads=1",
    "env.num_envs=8",
    "rl.rollout_steps=16",
    "rl.minibatch=32",
    "budget.search_steps=512",
    "budget.retrain_steps=128",
    "budget.eval_episodes=8",
    "budget.parity_frames=64",
    "budget.clip_frames=0",
)


@dataclass(frozen=True)
class Pair:
    """One run and what became of its target.

    Attributes:
        game, device, share, seed: of the run.
        target_s: median back to back, seconds.
        derived_s: what the agent that the search derived measured, seconds: the result without any repair.
        measured_s: of the deployed agent after its retraining.
        under: whether that is at most the target.
        slack: share of the target that it leaves unused; negative over it.
        outcome: ``holds``, ``nothing can``, ``none left``, ``rounds used up`` or ``over``.
        rounds, retrainings: how many it took.
        loads: of the machine before each measurement, jobs a minute.
    """

    game: str
    device: str
    share: float
    seed: int
    target_s: float
    derived_s: float
    measured_s: float
    under: bool
    slack: float
    outcome: str
    rounds: int
    retrainings: int
    loads: tuple[float, ...]

    @property
    def name(self) -> str:
        """Of its run folder."""
        return name_of(self.game, self.device, self.share, self.seed)


def name_of(game: str, device: str, share: float, seed: int) -> str:
    """Name of a pair's run folder."""
    return f"{game.partition(':')[2]}-{device}-{int(100 * share)}-s{seed}"


def config_of(game: str, identity: str, seed: int, folder: Path, shipped: str, words: Sequence[str]) -> Config:
    """The configuration of a run without its target.

    Args:
        game: of MinAtar.
        identity: runtime, dtype and threads.
        seed: of the run.
        folder: of tables and runs.
        shipped: device whose shipped tables are taken for this machine's; empty: they are measured.
        words: further ``key=value``.
    """
    config = resolve(overrides=[*WORDS, f"env.name={game}", f"device=this/{identity}", f"seed={seed}", *words])
    if not shipped:
        return table_of_this_machine(config, folder, TerminalProgress(), dry_run=False)
    path = folder / "tables" / f"{shipped}-{identity}.jsonl"
    if not path.is_file():
        source = find_table(f"{shipped}/{identity}").path
        if source is None:
            raise RequestError(f"{shipped}/{identity} has no file of its own: give another --shipped, or none")
        content = read_table(source)
        device = content.header["device"]
        if not isinstance(device, dict):
            raise RequestError(f"{source} names no device")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, replace(content, header={**content.header, "device": {**device, "name": "this"}}))
    return replace(config, table=str(path))


def with_target(config: Config, target_s: float) -> Plan:
    """The plan of a run under a latency target in seconds."""
    return make_plan(replace(config, objective=replace(config.objective, latency_target_s=target_s)))


def span_of(config: Config) -> tuple[float, float]:
    """What the cheapest and the largest network of the space measure on the device, seconds.

    Args:
        config: of the run.
    """
    plan = with_target(config, 1.0)
    limit, space = plan.constraints[0].limit, plan.space
    largest = discretise(space, space.macs(), joint=space.joint_macs())
    meter, found = Meter(running_of(plan), seconds=plan.config.budget.measure_s / 2), []
    for architecture in (cheapest(space, limit), largest):
        with temporary_folder("cosearch-") as folder:
            reading = meter.read(model_of(plan, architecture, folder), plan.targets).of(plan.targets[0])
        if reading is None:
            raise RequestError("a latency was not measured")
        found.append(reading.value)
    return found[0], found[1]


def run_pair(config: Config, game: str, identity: str, share: float, target_s: float, folder: Path) -> Pair:
    """One whole run, or the rest of one that was interrupted.

    Args:
        config: of the run.
        game, identity, share: of the pair.
        target_s: its target, seconds.
        folder: of the runs.
    """
    name, progress = name_of(game, identity, share, config.seed), TerminalProgress()
    if (folder / name / "run.json").is_file():
        run = resume_run(folder / name, progress)
    else:
        run = start_run(
            with_target(config, target_s), folder, name, "python -m cosearch.benchmarks.searches.under_target", progress
        )
    progress.close()
    return pair_of(run, game, identity, share)


def pair_of(run: RunDir, game: str, identity: str, share: float) -> Pair:
    """What a finished run says of its target."""
    summary = run.read(Summary)
    rounds = summary.target_rounds
    if summary.latency_measured_s is None or summary.deployed_round is None:
        raise RequestError(f"{run.path} measured nothing on this machine")
    measured_s, target_s = rounds[summary.deployed_round - 1].figures[0].measured, summary.latency_target_s
    return Pair(
        game=game,
        device=identity,
        share=share,
        seed=summary.seed,
        target_s=target_s,
        derived_s=rounds[0].figures[0].measured,
        measured_s=measured_s,
        under=within(measured_s, target_s),
        slack=1.0 - measured_s / target_s,
        outcome=summary.rounds_outcome,
        rounds=len(rounds),
        retrainings=sum(each.retraining != BEFORE for each in rounds),
        loads=tuple(0.0 if each.load is None else round(each.load, 1) for each in rounds),
    )


def in_short(pairs: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The figures of all pairs: how many are under, with and without repair; unused slack and rounds in the mean.

    Args:
        pairs: as the file keeps them.
    """

    def values(key: str, of: Sequence[Mapping[str, object]]) -> list[float]:
        return [float(str(pair[key])) for pair in of]

    under = [pair for pair in pairs if pair["under"]]
    derived = sum(d <= t for d, t in zip(values("derived_s", pairs), values("target_s", pairs)))
    return {
        "pairs": len(pairs),
        "under": len(under),
        "nothing_can": sum(pair["outcome"] == "nothing can" for pair in pairs),
        "under_without_repair": derived,
        "mean_slack": mean(values("slack", under)) if under else None,
        "mean_rounds": mean(values("rounds", pairs)) if pairs else None,
        "mean_retrainings": mean(values("retrainings", pairs)) if pairs else None,
    }


def markdown(pairs: Sequence[Mapping[str, object]]) -> str:
    """The table of the docs, one line a pair."""
    lines = ["| run | target | derived | deployed | unused | rounds, retrainings | load |", "|---|---|---|---|---|---|---|"]
    for pair in pairs:
        target, derived, measured = (1e6 * float(str(pair[key])) for key in ("target_s", "derived_s", "measured_s"))
        loads = pair["loads"]
        most = max(loads) if isinstance(loads, (list, tuple)) and loads else 0.0
        run = f"{pair['game']}, {pair['device']}, {pair['share']}, seed {pair['seed']}"
        times = f"{target:.1f} µs | {derived:.1f} µs | {measured:.1f} µs"
        counts = f"{float(str(pair['slack'])):.1%} | {pair['rounds']}, {pair['retrainings']}"
        lines.append(f"| {run} | {times} | {counts} | {most:.1f} |")
    return "\n".join(lines)


def main(
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Further configuration.")] = None,
    out: Annotated[Path, typer.Option(help="The JSON file with the results so far.")] = Path("under_target.json"),
    folder: Annotated[Path, typer.Option(help="Of tables and runs.")] = Path("runs/under_target"),
    shipped: Annotated[str, typer.Option(help="Device whose shipped tables stand for this machine's; default: measure.")] = "",
    games: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(GAMES),
    devices: Annotated[str, typer.Option(help="Runtime, dtype and threads, separated by commas.")] = ",".join(IDENTITIES),
) -> None:
    """Run what is missing, save after each pair, print the table."""
    results, asked = saved(out), {"shipped": shipped, "words": list(words or ())}
    if results:
        check_same(out, {"shipped": "", "words": []} | results, asked)
    spans, pairs = _objects(results.get("spans")), _objects(results.get("pairs"))
    for game, identity, share, seed in itertools.product(games.split(","), devices.split(","), SHARES, SEEDS):
        name, place = name_of(game, identity, share, seed), f"{game} {identity}"
        if name in pairs:
            continue
        config = config_of(game, identity, seed, folder, shipped, words or ())
        if place not in spans:
            low, high = span_of(config)
            spans[place] = {"cheapest_s": low, "largest_s": high, "load": os.getloadavg()[0]}
            _save(out, asked, spans, pairs)
        low, high = (float(str(spans[place][key])) for key in ("cheapest_s", "largest_s"))
        pair = run_pair(config, game, identity, share, low + share * (high - low), folder)
        pairs[name] = asdict(pair)
        _save(out, asked, spans, pairs)
        typer.echo(f"{name}: {'under' if pair.under else pair.outcome}, {pair.slack:.1%} unused, {pair.rounds} rounds", err=True)
    typer.echo(markdown(list(pairs.values())))
    typer.echo(json.dumps(in_short(list(pairs.values())), indent=1))


def _objects(value: object) -> dict[str, dict[str, object]]:
    return {key: dict(each) for key, each in value.items() if isinstance(each, dict)} if isinstance(value, dict) else {}


def _save(out: Path, asked: Mapping[str, object], spans: Mapping[str, object], pairs: Mapping[str, Mapping[str, object]]) -> None:
    save({"summary": in_short(list(pairs.values())), **asked, "spans": spans, "pairs": pairs}, out)


if __name__ == "__main__":
    program(main)
