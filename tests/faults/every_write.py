"""Every write of a command fails once: ``python tests/faults/every_write.py --out FOLDER``.

For each command of ``disturbed.JOBS`` and each of its calls of the disk: the command is begun with that call failing, must end
with one message or with its result, and the same command (``resume`` for a run that had begun) must then come to the result of an
undisturbed one. Each pass gives a call another error; every second one lasts until the command has ended. Goes on with a folder
that has results, and tries again what was wrong; ``--summary`` only counts them.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

from disturbed import JOBS, Ended, Job, begun, command, different  # noqa: E402
from faulty_disk import ERRORS, Fault  # noqa: E402

REMOVING = ("remove", "rmdir")


def fault_of(number: int, kind: str, turn: int) -> Fault:
    """What happens to a call in a pass: over eight passes each error once alone and once lasting."""
    error = ERRORS[(number + turn) % len(ERRORS)]
    if kind in REMOVING and error == errno.EMFILE:  # no removal can give that
        error = errno.EROFS
    return Fault(number, error, lasting=(number // len(ERRORS) + turn + turn // len(ERRORS)) % 2 == 1)


def undisturbed(name: str, straight: Path) -> tuple[Ended, dict[str, Any]]:
    """How a job ends that nothing disturbs, and its outcome; its folder is kept for the jobs that begin with it."""
    job = JOBS[name]
    if job.start and not (straight / job.start).exists():
        undisturbed(job.start, straight)
    folder = begun(job, straight / name, straight)
    done = command(job, job.words, folder)
    assert done.code == 0, f"{name} undisturbed: {done.err}"
    return done, job.outcome(folder / "work")


def trial(name: str, fault: Fault, expected: dict[str, Any], folder: Path, straight: Path) -> dict[str, Any]:
    """One call fails; the record of what came of it. ``wrong`` is empty where all was right."""
    job, began = JOBS[name], time.perf_counter()
    begun(job, folder, straight)
    hit = command(job, job.words, folder, fault)
    kind, _, path = hit.calls[fault.number - 1].partition(" ") if len(hit.calls) >= fault.number else ("", "", "")
    record: dict[str, Any] = {
        "job": name,
        "number": fault.number,
        "kind": kind,
        "path": path.removeprefix(f"{os.path.realpath(folder)}/"),
        "error": errno.errorcode[fault.error],
        "lasting": fault.lasting,
        "code": hit.code,
        "message": hit.err.strip().splitlines()[-1:],
    }
    wrong = _wrong(job, name, hit, folder, expected, record)
    if wrong:
        record["stderr"] = hit.err[-3000:]
    return {**record, "wrong": wrong, "wall_s": round(time.perf_counter() - began, 2)}


def _wrong(job: Job, name: str, hit: Ended, folder: Path, expected: dict[str, Any], record: dict[str, Any]) -> str:
    if not record["kind"]:
        return "the call never came"
    found = hit.fault(most_messages=2 if name == "compare" else 1)
    if found:
        return found
    if hit.code:
        again = command(job, job.next_words(folder / "work"), folder)
        record["again"] = again.code
        if again.code or again.fault():
            record["again_stderr"] = again.err[-3000:]
            return f"the same command then ended with {again.code} {again.fault()}"
    try:
        other = different(job.outcome(folder / "work"), expected)
    except Exception as error:  # noqa: BLE001  whatever is missing or damaged
        return f"no outcome: {type(error).__name__}: {error}"
    record["equal"] = not other
    return f"not equal: {', '.join(other)}" if other else ""


def faults(calls: Sequence[str], turn: int) -> list[Fault]:
    """One for every call of a job."""
    return [fault_of(number, call.partition(" ")[0], turn) for number, call in enumerate(calls, 1)]


def read(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The newest record of each trial so far."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(each["job"], each["number"], each["error"], each["lasting"]): each for each in records}


def campaign(
    out: Path, scratch: Path, names: Sequence[str], turns: Sequence[int], limit: int | None = None
) -> list[dict[str, Any]]:
    """All trials that have no record yet, or one of something wrong; the newest record of each."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "every_write.jsonl"
    done = {key for key, each in read(path).items() if not each["wrong"]}
    straight = {name: undisturbed(name, scratch / "straight") for name in names}
    for turn in turns:
        todo = [(name, fault) for name in names for fault in faults(straight[name][0].calls, turn)]
        random.Random(turn).shuffle(todo)  # what is done of a pass that was stopped is a fair sample of it
        for name, fault in todo[:limit]:
            if (name, fault.number, errno.errorcode[fault.error], fault.lasting) in done:
                continue
            record = trial(name, fault, straight[name][1], scratch / "trial", scratch / "straight")
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            if record["wrong"]:
                print(name, fault, record["kind"], record["path"], record["wrong"], flush=True)
    return list(read(path).values())


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Trials by job and kind of call, by error, and how they ended."""
    lines = []
    for job in dict.fromkeys(each["job"] for each in records):
        mine = [each for each in records if each["job"] == job]
        kinds, errors = Counter(each["kind"] for each in mine), Counter(each["error"] for each in mine)
        calls = len({each["number"] for each in mine})
        codes, right = Counter(each["code"] for each in mine), sum(not each["wrong"] for each in mine)
        lines.append(
            f"{job}: {calls} calls, {len(mine)} trials, {right} right; {dict(kinds)}; {dict(errors)}; exit codes {dict(codes)}"
        )
    return "\n".join(lines)


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--scratch", type=Path, help="folder for the trials; default: below --out")
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), help="commands; default: all")
    parser.add_argument("--passes", type=int, default=2, help="how often each call fails, at most 8")
    parser.add_argument("--summary", action="store_true", help="count the records, run nothing")
    words = parser.parse_args()
    if words.summary:
        print(summary(list(read(words.out / "every_write.jsonl").values())))
        return
    scratch = words.scratch or words.out / "scratch"
    records = campaign(words.out, scratch, words.jobs, range(words.passes))
    shutil.rmtree(scratch, ignore_errors=True)
    print(summary(records))
    sys.exit(any(each["wrong"] for each in records))


if __name__ == "__main__":
    main()
