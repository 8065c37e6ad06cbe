"""Policies of other packages, made smaller: ``python -m cosearch.benchmarks.searches.compress`` does what is missing.

Each policy is made once by its own package (``peers/policies.py``), saved as that package documents, and given to `cosearch
compress` as a user would, once for each seed of the command. A row of the table has the share of the policy's return above random
actions and the ratio of the latencies (timed in turns on this machine, in one runtime), with their intervals over seeds.
A call of the runtime takes its time whatever the network: the ratio that an empty network has stands beside it. Where the command
makes no agent the row has its words. A run that was killed goes on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Annotated

import onnx
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.peers.policies import POLICIES
from cosearch.benchmarks.peers.policy_files import PolicyFile
from cosearch.benchmarks.results import check_same, program, saved
from cosearch.config.run import config_from_dict
from cosearch.deploy.measure import measure_side_by_side
from cosearch.record.json_record import from_json
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.report.format import time_text
from cosearch.statistics import interval_text, student_interval
from latency_tables.errors import RequestError, RunFailedError
from latency_tables.onnx_models.blocks import build_empty_model
from latency_tables.text.reading import read_json

Row = dict[str, object]
PAGE = DOCS / "evidence" / "compress.md"
KEPT = Path(__file__).with_suffix(".json")
DEVICE = "raspberry-pi-4"
BUDGET = ("budget.search_steps=16384", "budget.retrain_steps=32768")
WORDS = ("budget.eval_episodes=64", "budget.measure_s=3", "threads=1")
WANTED_RATIO, WANTED_SHARE = 1 / 3, 0.95
ANSWERED = (1, 2)  # exit codes: a failed run, a wrong request


def compress(name: str, policy: PolicyFile, seed: int, device: str, runs: Path, words: Sequence[str]) -> Row:
    """Give one policy to the command, as a user would.

    Args:
        name: of the policy.
        policy: its file and words.
        seed: of the run.
        device: the target.
        runs: folder of the runs.
        words: further configuration.

    Returns:
        The row; with ``said`` where there is no agent.

    Raises:
        RunFailedError: the command was killed.
    """
    run = run_name(name, seed)
    command = [sys.executable, "-m", "cosearch", "compress", str(policy.path), "--env", policy.env, "--device", device, "--json"]
    command += [*policy.words, "--runs", str(runs), "--run", run, "--seed", str(seed), "--quiet", *words]
    row: Row = {"policy": name, "about": policy.about, "env": policy.env, "seed": seed, "device": device}
    path = runs / run / Summary.FILE
    if not path.is_file():
        if (runs / run).is_dir():  # an earlier process ended in the middle of it
            command = [sys.executable, "-m", "cosearch", "resume", str(runs / run), "--json", "--quiet"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        said = done.stderr.strip().splitlines()
        if done.returncode in ANSWERED or (not done.returncode and not path.is_file()):
            return {**row, "said": said[-1] if said else done.stdout.strip() or f"exit {done.returncode}"}
        if done.returncode:
            raise RunFailedError(
                f"{name}, seed {seed}: the command ended with {done.returncode}; the same command goes on with it"
            )
    summary = from_json(Summary, read_json(path, "a summary", RequestError), path)
    figures = summary.policy
    if figures is None:
        raise RequestError(f"{path} is of a run that `cosearch compress` did not make")
    return {
        **row,
        "score": summary.score_mean,
        "score_ci95": summary.score_ci95,
        "policy_score": summary.policy_score_mean,
        "policy_score_ci95": figures.score_ci95,
        "random_score": figures.random_score_mean,
        "share": figures.score_share,
        "share_ci95": figures.score_share_ci95,
        "acting": figures.acting,
        "measured_s": summary.latency_measured_s,
        "policy_measured_s": figures.latency_measured_s,
        "ratio": figures.latency_ratio,
        "ratio_range": figures.latency_ratio_range,
        "predicted_s": summary.latency_predicted_s,
        "policy_s": summary.policy_latency_s,
        "target_s": summary.latency_target_s,
        "params": summary.params,
        "env_steps": summary.env_steps,
        "wall_s": summary.wall_s,
    }


def run_name(policy: str, seed: int) -> str:
    """Name of the run folder."""
    return f"{re.sub('[^a-z0-9]+', '-', policy.lower())}-s{seed}"


def facts_of(policy: PolicyFile, run: Path) -> Row:
    """What a policy is beside its return: the numbers in its graph, and what of its latency an empty network takes.

    Args:
        policy: its file.
        run: folder of a run that learned from it.
    """
    path = Path(config_from_dict(RunDir.open(run).read(RunRecord).config).distill.teacher)  # the graph that was read
    timed = measure_side_by_side({"policy": path, "empty": build_empty_model()}, threads=1, seconds=3.0)
    graph = onnx.load(path).graph
    return {
        "about": policy.about,
        "env": policy.env,
        "params": sum(int(onnx.numpy_helper.to_array(entry).size) for entry in graph.initializer),
        "empty_ratio": timed.ratios["empty"].p50,
    }


def markdown(rows: Sequence[Mapping[str, object]], facts: Mapping[str, Mapping[str, object]]) -> str:
    """The table of the page, a line a policy.

    Args:
        rows: of policies and seeds.
        facts: see :func:`facts_of`, by policy.
    """
    lines = [
        "| policy | task, device | its return | share of it, each seed | mean [95 %] | latency here: policy, agent | ratio [95 %]"
        " | of an empty network | numbers: policy, agent | a third and 95 %? |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(str(row["policy"]) for row in rows):
        found = [row for row in rows if row["policy"] == name]
        made = [row for row in found if "said" not in row]
        head = f"| {name}: {found[0]['about']} | {found[0]['env']}, {found[0]['device']} |"
        lines += [f"{head} seed {row['seed']}: {row['said']} | | | | | | | |" for row in found if "said" in row]
        if made:
            lines.append(f"{head} {' | '.join(_figures(made, facts[name]))} |")
    return "\n".join(lines)


def _figures(rows: Sequence[Mapping[str, object]], facts: Mapping[str, object]) -> list[str]:
    """The cells of one policy behind its name."""
    shares = [0.0 if row["share"] is None else _number(row, "share") for row in rows]
    ratios = [_number(row, "ratio") for row in rows]
    empty, params = _number(facts, "empty_ratio"), _number(facts, "params")
    return [
        f"{mean(_number(row, 'policy_score') for row in rows):.1f}",
        ", ".join(f"{share:.2f}" for share in shares),
        f"**{mean(shares):.2f}** {interval_text(student_interval(shares), 'seed')}",
        ", ".join(time_text(median(_number(row, key) for row in rows)) for key in ("policy_measured_s", "measured_s")),
        f"**{mean(ratios):.2f}** {interval_text(student_interval(ratios), 'seed')}",
        f"{empty:.2f}",
        f"{params:,.0f}, {median(_number(row, 'params') for row in rows):,.0f}",
        verdict(mean(shares), mean(ratios), empty),
    ]


def verdict(share: float, ratio: float, empty: float) -> str:
    """Whether an agent has what was wanted, or by how much it misses.

    Args:
        share: of the policy's return.
        ratio: of the latencies.
        empty: ratio of an empty network, below which there is none.
    """
    misses = []
    if share < WANTED_SHARE:
        misses.append(f"return misses by {WANTED_SHARE - share:.2f}")
    if ratio > WANTED_RATIO:
        least = f", an empty network by {empty - WANTED_RATIO:.2f}" if empty > WANTED_RATIO else ""
        misses.append(f"latency misses by {ratio - WANTED_RATIO:.2f}{least}")
    return "; ".join(misses) or "yes"


def _kept(results: Mapping[str, object], key: str) -> dict[str, Row]:
    """The rows of an object of the results so far."""
    inner = results.get(key)
    return {str(name): dict(row) for name, row in inner.items()} if isinstance(inner, dict) else {}


def _number(row: Mapping[str, object], key: str) -> float:
    return float(str(row[key]))


def main(
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Further configuration.")] = None,
    out: Annotated[Path, typer.Option(help="The JSON file with the results so far.")] = KEPT,
    folder: Annotated[Path, typer.Option(help="Of policies and runs.")] = Path("runs/compress"),
    policies: Annotated[str, typer.Option(help="Separated by semicolons.")] = ";".join(POLICIES),
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    device: Annotated[str, typer.Option(help="The target.")] = DEVICE,
) -> None:
    """Make and compress what is missing, save after each run, write the page's table."""
    results, asked = saved(out), {"device": device, "words": list(words or ())}
    if results:
        check_same(out, {"device": DEVICE, "words": []} | results, asked)
    rows, facts = (_kept(results, key) for key in ("rows", "policies"))
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for name in policies.split(";"):
            if f"{name}, seed {seed}" in rows:
                continue
            policy = POLICIES[name](folder)
            row = compress(name, policy, seed, device, folder, [*WORDS, *(policy.budget or BUDGET), *(words or ())])
            if name not in facts and "said" not in row:
                facts[name] = facts_of(policy, folder / run_name(name, seed))
            rows[f"{name}, seed {seed}"] = json.loads(json.dumps(row))
            ordered = [row for each in POLICIES for row in rows.values() if row["policy"] == each]
            keep({**asked, "rows": rows, "policies": facts}, out, PAGE, "compress", markdown(ordered, facts))
            typer.echo(f"{name}, seed {seed}: {row.get('said') or (row['share'], row['ratio'])}", err=True)
    typer.echo(markdown(list(rows.values()), facts))


if __name__ == "__main__":
    program(main)
