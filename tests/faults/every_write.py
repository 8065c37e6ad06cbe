"""Every write of a command fails once: ``python tests/faults/every_write.py --out FOLDER``.

Each command of ``disturbed.JOBS`` runs once, and at each of its calls of the disk processes branch off in which that call
fails (``branching``): with each of four errors, alone and lasting until the command has ended (``--turns 8``; 2 gives two of
these eight to each call, in turns). A branch must end with one message or with its result. From every different state that it
left the same command (``resume`` for a run that had begun) must come to the result of an undisturbed one. A command with
records is not tried again; ``--summary`` only counts them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

from disturbed import JOBS, Ended, Job, begun, command, different, ended, started  # noqa: E402

TRUNK_S = 7200.0


def undisturbed(name: str, straight: Path) -> dict[str, Any]:
    """The outcome of a job that nothing disturbs; its folder is kept for the jobs that begin with it."""
    job = JOBS[name]
    if job.start and not (straight / job.start).exists():
        undisturbed(job.start, straight)
    folder = begun(job, straight / name, straight)
    done = command(job, job.words, folder, alone=True)
    assert done.code == 0, f"{name} undisturbed: {done.err}"
    return job.outcome(folder / "work")


def campaign(out: Path, scratch: Path, names: Sequence[str], turns: Sequence[int], every: int = 1) -> list[dict[str, Any]]:
    """All faults of the jobs that have no record yet; the records of all.

    Args:
        out: gets ``every_write.jsonl``.
        scratch: for the trials.
        names: of the jobs.
        turns: see ``disturbed.fault_of``.
        every: only each so many-th call.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "every_write.jsonl"
    for name in names:
        if any(record["job"] == name for record in read(path)):
            continue
        began = time.perf_counter()
        records = faults_of(name, scratch, turns, every)
        with path.open("a") as file:
            file.writelines(json.dumps({"job": name, **record}) + "\n" for record in records)
        wrong = sum(bool(record["wrong"]) for record in records)
        print(f"{name}: {len(records)} faults, {wrong} wrong, {time.perf_counter() - began:.0f} s", flush=True)
    return read(path)


def faults_of(name: str, scratch: Path, turns: Sequence[int], every: int) -> list[dict[str, Any]]:
    """The faults of one job; ``wrong`` of a record is empty where all was right."""
    job, straight, trunk = JOBS[name], scratch / "straight", scratch / "trunk"
    expected = undisturbed(name, straight)
    begun(job, trunk, straight)
    done = ended(started(job, job.words, trunk, turns, every), trunk, TRUNK_S)
    assert done.code == 0, f"{name}, from which the faults branch off: {done.err}"
    parts = different(job.outcome(trunk / "work"), expected)
    assert not parts, f"{name}, from which the faults branch off, is not equal: {parts}"
    records, states = read(trunk / "branches.jsonl"), {}
    for record in records:
        branch = Ended(record["code"], record["err"])
        record["message"] = branch.err.strip().splitlines()[-1:]
        record["wrong"] = branch.fault(most_messages=2 if name == "compare" else 1)
        if not record["wrong"]:
            key = (record["state"], branch.code == 0)
            if key not in states:
                states[key] = went_on(job, trunk / "states" / record["state"], scratch / "trial", expected, finished=key[1])
            record["wrong"] = states[key]
            record["resumed"] = not key[1]
        if not record["wrong"]:
            record["err"] = ""
    return records


def went_on(job: Job, state: Path, folder: Path, expected: dict[str, Any], *, finished: bool) -> str:
    """What is wrong with the result of a state, once the command was given again where it had failed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(state, folder / "work")
    if not finished:
        again = command(job, job.next_words(folder / "work"), folder, alone=True)
        if again.code or again.fault():
            return f"the same command then ended with {again.code} {again.fault()}: {again.err[-2000:]}"
    try:
        other = different(job.outcome(folder / "work"), expected)
    except Exception as error:  # noqa: BLE001  whatever is missing or damaged
        return f"no outcome: {type(error).__name__}: {error}"
    return f"not equal: {', '.join(other)}" if other else ""


def read(path: Path) -> list[dict[str, Any]]:
    """The records so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Faults by job, kind of call, error and exit code, and how many were right."""
    lines = []
    for job in dict.fromkeys(each["job"] for each in records):
        mine = [each for each in records if each["job"] == job]
        kinds = dict(Counter(each["kind"] for each in mine))
        errors = dict(Counter(f"{each['error']}{' lasting' * each['lasting']}" for each in mine))
        codes, right = dict(Counter(each["code"] for each in mine)), sum(not each["wrong"] for each in mine)
        states = len({each["state"] for each in mine if each["code"]})
        calls = len({each["number"] for each in mine})
        lines += [f"{job}: {calls} calls, {len(mine)} faults, {right} right, {states} states gone on from"]
        lines += [f"  by call: {kinds}", f"  by error: {errors}", f"  by exit code: {codes}"]
    return "\n".join(lines)


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--scratch", type=Path, help="folder for the trials; default: below --out")
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), help="commands; default: all")
    parser.add_argument("--turns", type=int, default=2, help="faults at each call, at most 8")
    parser.add_argument("--summary", action="store_true", help="count the records, run nothing")
    words = parser.parse_args()
    if words.summary:
        print(summary(read(words.out / "every_write.jsonl")))
        return
    scratch = words.scratch or words.out / "scratch"
    records = campaign(words.out, scratch, words.jobs, range(words.turns))
    print(summary(records))
    sys.exit(any(each["wrong"] for each in records))


if __name__ == "__main__":
    main()
