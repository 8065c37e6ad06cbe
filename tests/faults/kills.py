"""Commands killed at random moments: ``python tests/faults/kills.py --out FOLDER --kills 200``.

Each job of ``KILLED`` (every strategy, every kind of stage, the other verbs that go on) is killed with SIGKILL at a drawn share
of the time that it takes undisturbed, begun again, killed again, and at last let run to its end: the outcome must be that of an
undisturbed one. Goes on with a folder that has results; ``--summary`` only counts them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

from disturbed import GRADIENT, JOBS, TINY, Ended, begun, command, different, ended, searched, started  # noqa: E402

from cosearch.planning.builtins import load_builtins  # noqa: E402
from cosearch.strategies.base import STRATEGIES  # noqa: E402

KILLS_A_TRIAL = 4
FROM = 0.15  # of its time: a command that has hardly begun has written nothing
PROPOSALS = ("strategy.candidates=4", "rl.minibatch=8")
FEW = {
    "evolution": ("strategy.values.population=2",),
    "nsga2": ("strategy.values.population=2",),
    "predictor": ("strategy.values.initial=2",),
    "deephyper": ("strategy.values.agents=1", "strategy.values.batch=2"),
}
ONE_SHOT = ("strategy.paths_per_rollout=2", "rl.minibatch=8", "strategy.values.proposals=4", "strategy.values.population=2")
ACCELERATOR = ("accel.evaluations=560", "accel.final_evaluations=600")
VECTORS = tuple(word for word in TINY if not word.startswith("space."))
DQN = (
    *(word for word in TINY if not word.startswith(("rl.minibatch", "rl.epochs"))),
    *GRADIENT,
    "rl.algorithm=dqn",
    "dqn.replay=64",
    "dqn.learning_starts=8",
    "dqn.minibatch=8",
    "dqn.micro_batch=8",
    "dqn.quantiles=4",
    "dqn.target_interval=2",
)
SAC = (
    *(word for word in VECTORS if not word.startswith(("rl.minibatch", "rl.epochs"))),
    *GRADIENT,
    "rl.algorithm=sac",
    "sac.learning_starts=8",
    "sac.minibatch=8",
    "sac.updates_per_step=0.5",
)
JUDGED = (
    *(word for word in TINY if word != "distill.teacher=none"),
    "strategy.reduction_factor=2",
    "strategy.judge_by=divergence",
)
load_builtins()


def _strategy(name: str) -> tuple[str, ...]:
    info = STRATEGIES.get(name)
    of_kind = {"gradient": GRADIENT, "proposal": PROPOSALS, "one-shot": ONE_SHOT}[info.kind]
    own = () if name == "largest" or (info.kind == "gradient" and "paths_per_rollout" in info.unused) else of_kind
    return ("--strategy", name, *own, *FEW.get(name, ()))


KILLED = {
    **{f"search, {name}": searched(*_strategy(name), steps=40) for name in STRATEGIES.names()},
    "search, measured": searched(*GRADIENT, lean=False),
    "search, bracket": searched(*GRADIENT, "budget.bracket=3", "budget.retrain_steps=160"),
    "search, vectors": searched(*GRADIENT, env="gym:CartPole-v1", tiny=VECTORS),
    "search, Box": searched(*GRADIENT, env="gym:Pendulum-v1", tiny=VECTORS),
    "search, co-design": searched(*GRADIENT, "--device", "zc706", *ACCELERATOR, "accel.every_steps=16", steps=32),
    "search, workers": searched(*_strategy("random"), "strategy.workers=2", "strategy.order=[-1,-1,1,-1,0,-1,3,2]", steps=32),
    "search, DQN": searched(tiny=DQN, steps=32),
    "search, SAC": searched(tiny=SAC, env="gym:Pendulum-v1", steps=32),
    "search, judged by divergence": searched(*_strategy("predictor"), tiny=JUDGED, steps=80),
    "search, shared frames": searched(*_strategy("random"), "strategy.frames=shared", tiny=JUDGED, steps=80),
    **{name: JOBS[name] for name in ("teacher", "table", "compare", "export", "deploy", "bench extend")},
    "compare, two at once": JOBS["compare"],
}


def trial(name: str, seed: int, expected: dict[str, Any], straight_s: float, folder: Path, straight: Path) -> dict[str, Any]:
    """Some kills of one command, and its end; the record. ``wrong`` is empty where all was right."""
    draws, job, twice = np.random.default_rng(seed), KILLED[name], name == "compare, two at once"
    begun(job, folder, straight)
    words, kills = job.words, []
    for _ in range(KILLS_A_TRIAL):
        shares = float(draws.uniform(FROM, 1.0))
        process = started(job, words, folder)
        second = folder.with_name("second")
        if twice:
            time.sleep(float(draws.uniform(0.0, 0.3)))
            shutil.rmtree(second, ignore_errors=True)
            second.mkdir()
            (second / "work").symlink_to(folder / "work")
            other = started(job, words, second)
        process.join(shares * straight_s)
        alive = process.exitcode is None
        if alive:
            process.kill()
        done = ended(process, folder)
        kills.append({"after_s": round(shares * straight_s, 3), "stage": (done.stages or ("begin",))[-1], "code": done.code})
        if twice:
            beside = ended(other, second)
            kills[-1]["beside"] = beside.code
            if beside.fault():
                return _record(name, seed, kills, f"the one beside it: {beside.fault()}", beside)
        if not alive and (done.code or done.fault()):
            return _record(name, seed, kills, f"ended before its kill with {done.code} {done.fault()}", done)
        words = job.next_words(folder / "work") if alive else words
        if not alive:
            break
    done = command(job, job.next_words(folder / "work"), folder) if kills[-1]["code"] else done
    if done.code or done.fault():
        return _record(name, seed, kills, f"ended with {done.code} {done.fault()}", done)
    try:
        other_parts = different(job.outcome(folder / "work"), expected)
    except Exception as error:  # noqa: BLE001  whatever is missing or damaged
        return _record(name, seed, kills, f"no outcome: {type(error).__name__}: {error}", done)
    return _record(name, seed, kills, f"not equal: {', '.join(other_parts)}" if other_parts else "", done)


def _record(name: str, seed: int, kills: Sequence[dict[str, Any]], wrong: str, done: Ended) -> dict[str, Any]:
    return {"job": name, "seed": seed, "kills": kills, "wrong": wrong, **({"stderr": done.err[-3000:]} if wrong else {})}


def killed(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The kills of a record that came before the command's end."""
    return [kill for kill in record["kills"] if kill["code"] == -signal.SIGKILL]


def read(path: Path) -> list[dict[str, Any]]:
    """The records so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def campaign(out: Path, scratch: Path, names: Sequence[str], kills: int) -> list[dict[str, Any]]:
    """Trials of each job in turn until there were so many kills; the records of all."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "kills.jsonl"
    expected: dict[str, tuple[dict[str, Any], float]] = {}
    for seed in range(10_000):
        for name in names:
            records = read(path)
            if sum(len(killed(record)) for record in records) >= kills and seed:
                return records
            if any(record["job"] == name and record["seed"] == seed for record in records):
                continue
            if name not in expected:
                expected[name] = undisturbed(name, scratch / "straight")
            outcome, straight_s = expected[name]
            record = trial(name, seed, outcome, straight_s, scratch / "trial", scratch / "straight")
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            if record["wrong"]:
                print(name, seed, record["wrong"], flush=True)
                shutil.copytree(scratch / "trial", out / "wrong" / f"{name}-{seed}".replace(" ", "-"), symlinks=True)
    return read(path)


def undisturbed(name: str, straight: Path) -> tuple[dict[str, Any], float]:
    """The outcome of a job that nothing disturbs, and how long it took, in seconds."""
    job = KILLED[name]
    if job.start and not (straight / job.start / "work").exists():
        done = command(JOBS[job.start], JOBS[job.start].words, begun(JOBS[job.start], straight / job.start, straight))
        assert done.code == 0, f"{job.start} undisturbed: {done.err}"
    folder = begun(job, straight / name, straight)
    command(job, ("--help",), folder)  # the server imports everything
    began = time.perf_counter()
    done = command(job, job.words, folder)
    took_s = time.perf_counter() - began
    assert done.code == 0, f"{name} undisturbed: {done.err}"
    return job.outcome(folder / "work"), took_s


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Kills by job and stage, and how many trials ended as an undisturbed one."""
    lines = []
    for job in dict.fromkeys(each["job"] for each in records):
        mine = [each for each in records if each["job"] == job]
        stages = Counter(kill["stage"] for each in mine for kill in killed(each))
        right = sum(not each["wrong"] for each in mine)
        lines.append(f"{job}: {sum(stages.values())} kills {dict(stages)} in {len(mine)} trials, {right} right")
    total = sum(len(killed(each)) for each in records)
    return "\n".join([*lines, f"{total} kills in {len(records)} trials, {sum(not each['wrong'] for each in records)} right"])


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--scratch", type=Path, help="folder for the trials; default: below --out")
    parser.add_argument("--jobs", nargs="*", default=list(KILLED), help="what is killed; default: all")
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--summary", action="store_true", help="count the records, run nothing")
    words = parser.parse_args()
    if words.summary:
        print(summary(read(words.out / "kills.jsonl")))
        return
    scratch = words.scratch or words.out / "scratch"
    records = campaign(words.out, scratch, words.jobs, words.kills)
    print(summary(records))
    sys.exit(any(each["wrong"] for each in records))


if __name__ == "__main__":
    main()
