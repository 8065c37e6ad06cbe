"""Policies of other packages, made smaller: ``python -m cosearch.benchmarks.compress`` does what is missing, policy by policy.

Each policy is made by its own package (``peers/policies.py``), saved as that package documents, and given to `cosearch compress`
as a user would. A row has the return and the latency of both, the ratio of the latencies (timed in turns on this machine, in one
runtime), and the share of the policy's return above actions at random, with its interval over episodes. Where the command makes
no agent the row has its words. The budget is small (``WORDS``): it shows how far a few minutes go.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.peers.policies import POLICIES, PolicyFile
from cosearch.record.json_record import from_json
from cosearch.record.summary import Summary
from cosearch.report.format import time_text
from cosearch.statistics import interval_text
from latency_tables.errors import RequestError
from latency_tables.reading import read_json

Row = dict[str, object]
PAGE = DOCS / "evidence" / "compress.md"
KEPT = Path(__file__).with_suffix(".json")
DEVICE = "raspberry-pi-4"
WORDS = ("budget.search_steps=16384", "budget.retrain_steps=32768", "budget.eval_episodes=32", "budget.measure_s=4", "threads=1")


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
    """
    run = f"{name.replace(' ', '-').replace(',', '').lower()}-s{seed}"
    command = [sys.executable, "-m", "cosearch", "compress", str(policy.path), "--env", policy.env, "--device", device, "--json"]
    command += [*policy.words, "--runs", str(runs), "--run", run, "--seed", str(seed), "--quiet", *words]
    row: Row = {"policy": name, "about": policy.about, "env": policy.env, "seed": seed, "device": device}
    if not (runs / run / Summary.FILE).is_file():
        if (runs / run).is_dir():  # an earlier process ended in the middle of it
            command = [sys.executable, "-m", "cosearch", "resume", str(runs / run), "--json", "--quiet"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            return {**row, "said": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    path = runs / run / Summary.FILE
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
        "env_steps": summary.env_steps,
        "wall_s": summary.wall_s,
    }


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """The table of the page, a line a policy and seed."""
    lines = [
        "| policy | return: policy | agent | share of it [95 %] | latency here: policy | agent | ratio, rounds | ratio there "
        "| steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        about = f"{row['policy']}, {row['env']}, seed {row['seed']}: {row['about']}"
        if "said" in row:
            lines.append(f"| {about} | {row['said']} | | | | | | | |")
            continue
        scores = [
            f"{_number(row, key):.1f} {interval_text(_pair(row, f'{key}_ci95'), 'episode')}" for key in ("policy_score", "score")
        ]
        share, pair = row["share"], _pair(row, "share_ci95")
        low_high = "" if pair is None else f" [{pair[0]:.2f}, {pair[1]:.2f}]"
        told = "no better than random" if share is None else f"**{_number(row, 'share'):.2f}**{low_high}"
        times = " | ".join(time_text(_number(row, key)) for key in ("policy_measured_s", "measured_s"))
        low, high = _pair(row, "ratio_range") or (float("nan"), float("nan"))
        there = _number(row, "predicted_s") / _number(row, "policy_s")
        ratio = f"**{_number(row, 'ratio'):.2f}** ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {about} | {' | '.join(scores)} | {told} | {times} | {ratio} | {there:.2f} | {_number(row, 'env_steps'):,.0f} |"
        )
    return "\n".join(lines)


def _number(row: Mapping[str, object], key: str) -> float:
    return float(str(row[key]))


def _pair(row: Mapping[str, object], key: str) -> tuple[float, float] | None:
    value = row[key]
    return (float(value[0]), float(value[1])) if isinstance(value, (list, tuple)) else None


def main(
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Further configuration.")] = None,
    out: Annotated[Path, typer.Option(help="The JSON file with the results so far.")] = KEPT,
    folder: Annotated[Path, typer.Option(help="Of policies and runs.")] = Path("runs/compress"),
    policies: Annotated[str, typer.Option(help="Separated by semicolons.")] = ";".join(POLICIES),
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    device: Annotated[str, typer.Option(help="The target.")] = DEVICE,
) -> None:
    """Make and compress what is missing, save after each policy, write the page's table."""
    found = read_json(out, "results", RequestError) if out.is_file() else {}
    rows: dict[str, Row] = {}
    if isinstance(found, dict) and isinstance(found.get("rows"), dict):
        rows = {str(key): dict(row) for key, row in found["rows"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name in policies.split(";"):
        for seed in range(seeds):
            if f"{name}, seed {seed}" in rows:
                continue
            policy = POLICIES[name](folder, seed)
            row = compress(name, policy, seed, device, folder, [*WORDS, *(words or ())])
            rows[f"{name}, seed {seed}"] = json.loads(json.dumps(row))
            keep({"rows": rows}, out, PAGE, "compress", markdown(list(rows.values())))
            typer.echo(f"{name}, seed {seed}: {row.get('said') or row.get('ratio')}", err=True)
    typer.echo(markdown(list(rows.values())))


if __name__ == "__main__":
    typer.run(main)
