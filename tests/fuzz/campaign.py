"""Coverage-guided fuzzing of every reader of files, with atheris (libFuzzer), one process a reader, for as long as one says.

    pip install -e '.[test,fuzz]'
    python tests/fuzz/campaign.py --seconds 600                      # ten minutes over all readers
    python tests/fuzz/campaign.py --seconds 60 --reader design.json  # one of them
    python tests/fuzz/campaign.py --table                            # what has been done so far, as a table

The working folder (``--folder``, ``build/fuzz``) keeps what was found to reach new code, the executions of each reader and the
faults; the same command goes on there. A fault is a file of the working folder; shortened, it belongs into ``tests/fuzz/corpus``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("cosearch", "latency_tables", "accel_models", "run_agent")
EDGES = re.compile(r"#\d+\s+\w+\s+cov: (\d+)")
RUNS = re.compile(r"number_of_executed_units: (\d+)|^#(\d+)\s", re.MULTILINE)
HANG_S = 30  # wall time of one input; libFuzzer ends the process there
MEMORY_MB = 6000


def one_reader(name: str, folder: Path, seconds: float) -> None:
    """Fuzz one reader in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=list(ROOMS)):
        import fuzz_readers
        from fuzz_mutations import mutated
        from fuzz_rule import outcome

        logging.disable()
        warnings.simplefilter("error")
        reader = fuzz_readers.made(name, tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        for content in [*reader.seeds, *(path.read_bytes() for path in fuzz_readers.kept(name))]:
            (folder / "corpus" / hashlib.sha256(content).hexdigest()).write_bytes(content)
            outcome(reader, content)  # imports what it needs while imports are instrumented
    seen: set[str] = set()

    def try_one(content: bytes) -> None:
        try:
            outcome(reader, content)
        except Exception as error:  # noqa: BLE001 - whatever leaves a reader is what is looked for
            place = _place(error)
            if place not in seen:
                seen.add(place)
                _keep(folder / "faults", place, content, error)

    def mutate(content: bytes, largest: int, seed: int) -> bytes:
        return mutated(name, content, seed, lambda data: atheris.Mutate(data, largest))[:largest]

    longest = max(4096, 2 * max(len(seed) for seed in reader.seeds))
    words = [
        *(sys.argv[0], str(folder / "corpus"), f"-max_total_time={int(seconds)}", f"-max_len={longest}", f"-timeout={HANG_S}"),
        *(f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={folder}/faults/", "-print_final_stats=1", "-close_fd_mask=0"),
    ]
    atheris.Setup(words, try_one, custom_mutator=mutate)
    atheris.Fuzz()


def _place(error: BaseException) -> str:
    """Where a fault begins: its class, and the last line of ours in the traceback."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if any(f"/{room}/" in frame.filename for room in ROOMS)
    ]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}-{Path(last.filename).stem}-{last.name}-{last.lineno}".replace("<", "").replace(">", "")


def _keep(folder: Path, place: str, content: bytes, error: BaseException) -> None:
    (folder / place).write_bytes(content)
    (folder / f"{place}.txt").write_text("".join(traceback.format_exception(error))[-4000:], encoding="utf-8", errors="replace")


def run(name: str, folder: Path, seconds: float) -> dict[str, object]:
    """Fuzz one reader in a process of its own, and add what it did to the reader's figures."""
    place = folder / name
    for part in ("corpus", "faults"):
        (place / part).mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    done = subprocess.run(
        [sys.executable, __file__, "--only", name, "--folder", str(folder), "--seconds", str(seconds)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    return _added(place, done.stdout + done.stderr, done.returncode, time.monotonic() - begun)


def _added(place: Path, said: str, code: int, spent_s: float) -> dict[str, object]:
    before = read_figures(place)
    runs = [int(final or seen) for final, seen in RUNS.findall(said)]
    if code or not runs:
        (place / "last.txt").write_text(said[-20000:], encoding="utf-8", errors="replace")
    figures = {
        "executions": before["executions"] + max(runs, default=0),
        "edges": max([before["edges"], *map(int, EDGES.findall(said))]),
        "seconds": round(before["seconds"] + spent_s, 1),
        "faults": len(faults(place)),
        "ended": code,
    }
    (place / "figures.json").write_text(json.dumps(figures))
    return figures


def read_figures(place: Path) -> dict[str, int]:
    """What was done with a reader so far."""
    file = place / "figures.json"
    return (
        json.loads(file.read_text()) if file.is_file() else {"executions": 0, "edges": 0, "seconds": 0, "faults": 0, "ended": 0}
    )


def faults(place: Path) -> list[Path]:
    """The contents that a reader did not take as it should."""
    return sorted(path for path in (place / "faults").glob("*") if path.suffix != ".txt")


def table(folder: Path, names: Iterable[str]) -> str:
    """What has been done, as Markdown."""
    lines = ["| reader | executions | edges | seconds | faults |", "| --- | --- | --- | --- | --- |"]
    total = {"executions": 0, "edges": 0, "seconds": 0, "faults": 0}
    for name in names:
        figures = read_figures(folder / name)
        total = {key: value + figures[key] for key, value in total.items()}
        lines.append(
            f"| `{name}` | {figures['executions']:,} | {figures['edges']:,} | {figures['seconds']:.0f} | {figures['faults']} |"
        )
    lines.append(f"| all | {total['executions']:,} | {total['edges']:,} | {total['seconds']:.0f} | {total['faults']} |")
    return "\n".join(lines)


def main() -> int:
    """The command line; 1 where there are faults."""
    import fuzz_readers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="the working folder")
    parser.add_argument("--seconds", type=float, default=600.0, help="time for all readers together")
    parser.add_argument("--reader", action="append", choices=sorted(fuzz_readers.MAKERS), help="only this one; may be repeated")
    parser.add_argument("--table", action="store_true", help="print what has been done so far")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the process of one reader
    asked = parser.parse_args()
    names = asked.reader or list(fuzz_readers.MAKERS)
    if asked.only:
        one_reader(asked.only, asked.folder / asked.only, asked.seconds)
    elif not asked.table:
        for name in sorted(names, key=lambda name: read_figures(asked.folder / name)["executions"]):
            print(name, json.dumps(run(name, asked.folder, asked.seconds / len(names))), flush=True)
    print(table(asked.folder, names))
    return int(any(faults(asked.folder / name) for name in names))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    sys.exit(main())
