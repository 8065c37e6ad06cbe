"""How fast is the RL core beside its peers? Environment steps a second, acting and learning together.

``python -m cosearch.benchmarks.speed.throughput`` trains the same network with the same hyper-parameters on the same machine with
this package, with stable-baselines3 and with a plain PPO in the style of single-file scripts (float32, eager, NCHW, Gymnasium's
vector environments). Each contestant lives in a process of its own and makes one update after another: in each round every
contestant makes one whole update (a rollout and all its epochs) while the others wait, so that what else the machine does meets
all alike. Printed are the median over the rounds, the ratios with 95 % t intervals of the rounds' logarithms, where this
package's time goes, and how far it is from the bound that the machine's matrix multiplication sets.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.peers.contestants import CONTESTANTS, make_contestant
from cosearch.benchmarks.peers.workloads import WORKLOADS, Workload
from cosearch.benchmarks.results import program, saved
from cosearch.cli.environment import prepare_process
from cosearch.statistics import interval_text, student_interval
from latency_tables.errors import RequestError, RunFailedError

OURS = CONTESTANTS[0]
SAVED = Path(__file__).with_name("throughput.json")
DOCUMENT = DOCS / "evidence" / "speed.md"
SIDE = 2048  # of the multiplied matrices


def serve(pipe: Any, name: str, workload: Workload, seed: int, threads: int) -> None:
    """Body of a contestant's process: an update for each ``advance``, until ``None``.

    Args:
        pipe: requests in, answers out.
        name, workload, seed, threads: see ``make_contestant``.
    """
    contestant = make_contestant(name, workload, seed, threads)
    pipe.send(contestant.parameters())
    for request in iter(pipe.recv, None):
        if request == "advance":
            began = time.perf_counter()
            contestant.advance()
            pipe.send(time.perf_counter() - began)
        else:
            pipe.send(contestant.shares())
    contestant.close()


class Process:
    """A contestant in a process of its own.

    Args:
        name, workload, seed, threads: see ``make_contestant``.

    Raises:
        RunFailedError: the process died; its error is on stderr.
    """

    def __init__(self, name: str, workload: Workload, seed: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, workload, seed, threads))
        self._process.start()
        theirs.close()
        self.parameters = self._answer()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError as error:
            self._process.join()
            raise RunFailedError(f"the process of {self.name} ended with code {self._process.exitcode}") from error

    def ask(self, request: str) -> Any:
        """``advance``: seconds of one update. ``shares``: where the time went."""
        self._pipe.send(request)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def compete(workload: Workload, rounds: int, threads: int, names: Sequence[str] = CONTESTANTS, seed: int = 0) -> dict[str, Any]:
    """All contestants on one workload, in turns.

    Args:
        workload: what to train.
        rounds: updates of each contestant; one more comes before and is not counted.
        threads: CPU threads of each.
        names: of the contestants, ours first.
        seed: of all.
    """
    processes = [Process(name, workload, seed, threads) for name in names]
    sizes = {process.name: process.parameters for process in processes}
    if len(set(sizes.values())) != 1:
        raise RunFailedError(f"the contestants train networks of different sizes: {sizes}")
    for process in processes:
        process.ask("advance")
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for process in processes[number % len(processes) :] + processes[: number % len(processes)]:
            speeds[process.name].append(workload.steps_per_update / process.ask("advance"))
    shares = processes[0].ask("shares")
    for process in processes:
        process.close()
    flops = workload.flops_per_step()
    return {
        "name": workload.name,
        "environment": workload.env,
        "network": workload.network,
        "parameters": processes[0].parameters,
        "num_envs": workload.num_envs,
        "rollout_steps": workload.rollout_steps,
        "epochs": workload.epochs,
        "minibatches": workload.minibatches,
        "rounds": rounds,
        "steps_per_s": {name: float(np.median(values)) for name, values in speeds.items()},
        "ratios": {name: ratio(speeds[names[0]], values) for name, values in speeds.items() if name != names[0]},
        "steps_per_s_by_round": speeds,
        "time_shares": shares,
        "flops_per_step": flops,
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Geometric mean of the rounds' ratios with its 95 % t interval; the interval is null for a single round.

    Args:
        ours, theirs: steps per second of each round.
    """
    logs = np.log(np.asarray(ours) / np.asarray(theirs))
    bounds = student_interval(logs)
    return {"ratio": math.exp(float(logs.mean())), "ci95": None if bounds is None else [math.exp(bound) for bound in bounds]}


def matmul_peak(threads: int, seconds: float = 1.0) -> dict[str, float]:
    """The best floating-point operations per second of a large matrix product, by number type.

    Args:
        threads: CPU threads.
        seconds: of repetitions for each type.
    """
    import torch

    torch.set_num_threads(threads)
    found = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
        best, end = math.inf, time.perf_counter() + seconds
        torch.mm(a, b)
        while time.perf_counter() < end:
            began = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - began)
        found[name] = 2.0 * SIDE**3 / best
    return found


def markdown(result: dict[str, Any]) -> str:
    """The tables of the documentation."""
    lines = [
        "| workload | cosearch | " + " | ".join(f"{name} | ratio [95 %]" for name in CONTESTANTS[1:]) + " |",
        "|---|---|" + "---|---|" * (len(CONTESTANTS) - 1),
    ]
    for w in result["workloads"]:
        update = f"{w['num_envs']} x {w['rollout_steps']} steps, {w['minibatches']} x {w['epochs']} minibatches"
        what = f"{w['name']} ({w['parameters']:,} parameters; {update}; {w['rounds']} rounds)"
        cells = [what, f"{w['steps_per_s'][OURS]:,.0f}"]
        for name, r in w["ratios"].items():
            cells += [f"{w['steps_per_s'][name]:,.0f}", f"**{r['ratio']:.2f}** {interval_text(r['ci95'], 'round')}"]
        lines.append("| " + " | ".join(cells) + " |")
    parts = list(result["workloads"][0]["time_shares"])
    lines += ["", "| workload | " + " | ".join(parts) + " | bound, steps/s | reached |", "|---|" + "---|" * (len(parts) + 2)]
    for w in result["workloads"]:
        shares = " | ".join(f"{w['time_shares'][part]:.0%}" for part in parts)
        lines.append(f"| {w['name']} | {shares} | {w['bound_steps_per_s']:,.0f} | {w['share_of_bound']:.1%} |")
    return "\n".join(lines)


def main(
    only: Annotated[list[str] | None, typer.Option("--only", help="Workload; repeat for several. All when absent.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Updates of each contestant.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each contestant.")] = os.cpu_count() or 1,
    rollout_steps: Annotated[int, typer.Option(min=0, help="Shorter rollouts, the minibatch kept; 0: as published.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for a machine.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Keep the result beside this file and in the documentation.")] = False,
) -> None:
    """Measure and print."""
    prepare_process()
    for name in only or ():
        if name not in WORKLOADS:
            raise typer.BadParameter(f"unknown workload {name!r}: expected {', '.join(WORKLOADS)}")
    import torch

    machine = {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    machine["torch"] = torch.__version__
    load, peak = os.getloadavg(), matmul_peak(threads)
    conditions = {"machine": machine, "load_before": load, "threads": threads, "matmul_flops": peak}
    found = []
    for name in only or WORKLOADS:
        workload = shortened(WORKLOADS[name], rollout_steps) if rollout_steps else WORKLOADS[name]
        one = compete(workload, rounds, threads)
        bound = max(peak.values()) / one["flops_per_step"]
        found.append({**one, "bound_steps_per_s": bound, "share_of_bound": one["steps_per_s"][OURS] / bound, **conditions})
        if not as_json:
            typer.echo(f"{name} done", err=True)
    result: dict[str, Any] = {"workloads": found}
    if save:  # what was measured before and is not measured now is kept
        before = saved(SAVED).get("workloads", [])
        others = [w for w in before if w["name"] not in {new["name"] for new in found}]
        result["workloads"] = sorted(found + others, key=lambda w: list(WORKLOADS).index(w["name"]))
        keep(result, SAVED, DOCUMENT, "throughput", markdown(result))
    typer.echo(json.dumps(result, indent=1) if as_json else markdown(result))


def shortened(workload: Workload, steps: int) -> Workload:
    """The workload with rollouts of ``steps``, its minibatch kept.

    Raises:
        RequestError: the rollout would be no multiple of the minibatch.
    """
    size = workload.num_envs * steps
    if size % workload.minibatch:
        raise RequestError(f"{steps} steps of {workload.num_envs} environments are no multiple of {workload.minibatch} frames")
    return replace(workload, rollout_steps=steps, minibatches=size // workload.minibatch)


def processor() -> str:
    """Name of the processor, as the system calls it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    program(main)
