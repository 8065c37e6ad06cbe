"""Files of this version as later versions will find them, small: the folder ``tests/assets/VERSION-DATE``.

    python tests/support/make_assets.py          # from the root; a minute on one core; refuses a folder that exists

Runs are cut where a kill would cut them and lie packed in ``runs.tar.xz``. ``tests/pipeline/test_formats.py`` opens every file of
every such folder with the present code, and resumes what was cut.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "tests" / "assets"
PLACE = "/made"  # where the files say that they were made
LEFT_OUT = ("report.html", "compare.html", "curves.png", ".lock")  # written again by the verbs, or of no content
VECTORS, IMAGES, CHIP = "gym:CartPole-v1", "minatar:breakout", "zc706"
BUDGET = (
    "threads=1",
    "env.num_envs=4",
    "rl.rollout_steps=16",
    "rl.minibatch=32",
    "rl.epochs=1",
    "budget.search_steps=256",
    "budget.retrain_steps=256",
    "budget.eval_episodes=4",
    "budget.parity_frames=8",
    "budget.measure_s=0.05",
    "budget.checkpoint_interval_s=0",
    "objective.latency_ratio=2",
)
MLP = {
    "stem_width": 8,
    "stage_widths": [8],
    "stage_repeats": [2],
    "hidden": 8,
    "candidates": ["linear_relu", "mlp_w32_relu", "skip_layer"],
}
CHAIN = {"stem_channels": 4, "stage_channels": [4, 8], "stage_repeats": [1, 1], "stage_strides": [1, 2], "hidden": 8}
CELL = {"depths": [4], "normal_cells": 1, "nodes": 2, "hidden": 8}
MACRO = {"resolutions": [1], "stem_widths": [4], "stage_strides": [2], "stage_widths": [[4]], "hidden": [0, 8]}


def space(values: Mapping[str, object]) -> str:
    """The word that sets the values of a space."""
    return f"space.values={json.dumps(values)}"


OF_VECTORS = (*BUDGET, f"env.name={VECTORS}", space(MLP), "table=table.jsonl", "distill.teacher=teacher.json")
OF_IMAGES = (*BUDGET, f"env.name={IMAGES}", space(CHAIN), "distill.teacher=none")
PATHS = ("strategy.paths_per_rollout=2",)
DRAWS_PATHS = ("a2d", "a3cs", "hurricane", "one-shot", "reinforce", "snas", "unas")
ALONE = ("distill.teacher=none",)
FEW = ("strategy.values.proposals=8",)  # as few as there are steps to score them
OWN = {"hurricane": FEW, "one-shot": FEW}  # strategy -> further words
OFF_POLICY = ("rl.algorithm=dqn", "dqn.learning_starts=32", "dqn.minibatch=16", "dqn.replay=64", "distill.teacher=none")


def cut_runs(strategies: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """For each run that is cut, its name: the stage that it is cut in, and its words.

    Args:
        strategies: their names.
    """
    runs = {
        f"search-{name}": (
            "search",
            (*OF_VECTORS, f"strategy.name={name}", *(PATHS if name in DRAWS_PATHS else ()), *OWN.get(name, ())),
        )
        for name in strategies
    }
    paths, images = PATHS, tuple(word for word in OF_IMAGES if not word.startswith("rl.minibatch"))
    without = tuple(word for word in OF_VECTORS if not word.startswith(("rl.minibatch", "rl.epochs", "distill.")))
    return runs | {
        "search-darts-second-order": ("search", (*OF_VECTORS, "strategy.name=darts", "strategy.values.order=2")),
        "search-one-shot-frames": (
            "search",
            (
                *OF_VECTORS,
                *paths,
                "strategy.name=one-shot",
                *FEW,
                "strategy.values.scores=frames",
                "strategy.values.sampling=fair",
            ),
        ),
        "search-shared-weights": ("search", (*OF_VECTORS, "strategy.name=evolution", "strategy.candidate_init=shared")),
        "search-chain": ("search", (*OF_IMAGES, *paths)),
        "search-cell": ("search", (*images, "rl.minibatch=32", "space.name=cell", space(CELL), *paths)),
        "search-macro": ("search", (*images, "rl.minibatch=32", "space.name=macro", space(MACRO), *paths)),
        "search-accelerator": ("search", (*OF_IMAGES, f"device={CHIP}", "accel.evaluations=560", *paths)),
        "search-dqn": ("search", (*without, *OFF_POLICY, *paths)),
        "retrain-ppo": ("retrain", (*OF_VECTORS, *paths)),
        "retrain-a2c": ("retrain", (*without, "rl.algorithm=a2c", *ALONE, *paths)),
        "retrain-dqn": ("retrain", (*without, *OFF_POLICY, *paths)),
        "retrain-bracket": ("retrain", (*OF_VECTORS, "budget.bracket=2", *paths)),
        "finish": ("finish", (*OF_VECTORS, *paths)),
    }


class Cut:
    """Progress that interrupts a run at an update of a stage, or where a stage without updates begins.

    Args:
        stage: of the run.
        at: the update.
    """

    def __init__(self, stage: str, at: int = 2) -> None:
        self._stage, self._at, self._updates = stage, at, 0

    def stage(self, name: str, total_steps: int, done_steps: int) -> None:
        """See ``Progress``."""
        if name == self._stage == "finish":
            raise KeyboardInterrupt

    def update(self, metrics: Mapping[str, object]) -> None:
        """See ``Progress``."""
        self._updates += metrics["stage"] == self._stage
        if self._updates == self._at:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        """See ``Progress``."""


def make_files(folder: Path) -> None:
    """Tables, teacher, designs and architectures, in ``folder``, which is also the working folder."""
    from cosearch.bench.table import read_table, shipped_tasks, table_path, write_table
    from cosearch.config.run import resolve
    from cosearch.deploy.sampling import write_worklist
    from cosearch.planning.builtins import load_builtins
    from cosearch.planning.space import make_space
    from cosearch.space.network import reference_agents

    load_builtins()
    made = make_space(resolve(overrides=[f"env.name={VECTORS}", space(MLP)]))
    references = reference_agents(made.frame_shape, made.num_actions)
    write_worklist(made, folder / "worklist.json", 8, further=[op for ops in references.values() for op in ops])
    tables("fit", "--device", "jetson", "--worklist", "worklist.json", "--out", "table.jsonl")
    tables(
        *("measure", "--device", "asset", "--worklist", "worklist.json", "--out", "table-measured.jsonl", "--synthetic"),
        *("--rounds", "3", "--max-rounds", "3", "--budget", "20"),
    )
    rows = [json.loads(line) for line in (folder / "table.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    rows = [row for row in rows if "key" in row]
    (folder / "latencies.csv").write_text(
        "key,latency_us\n" + "".join(f'"{row["key"]}",{row["latency_s"] * 1e6:.3f}\n' for row in rows), encoding="utf-8"
    )
    tables("import", "latencies.csv", "--device", "asset", "--source", "made up", "--out", "table-imported.jsonl")
    words = ["teacher", "--env", VECTORS, "--out", "teacher.json", "--steps", "128", "--episodes", "4", "--quiet"]
    search(*words, "env.num_envs=4", "rl.rollout_steps=16", "rl.minibatch=32")
    search("sample", "--env", IMAGES, "--out", "samples", "--json")
    (folder / "samples" / "0000.json").rename(folder / "architecture.json")
    (folder / "samples" / "0000.onnx").unlink()
    shutil.copy(ROOT / "accel_models" / "designs" / "edge-npu.json", folder / "design.json")
    table = read_table(table_path(shipped_tasks()[0]))
    few = dict(list(table.results.items())[:3])
    write_table(replace(table, results=few), folder / "bench" / table_path(table.task).name)


def all_cut_runs() -> dict[str, tuple[str, tuple[str, ...]]]:
    """See :func:`cut_runs`, for every strategy that there is."""
    from cosearch.planning.builtins import load_builtins
    from cosearch.strategies.base import STRATEGIES

    load_builtins()
    return cut_runs([info.name for info in STRATEGIES.entries()])


def make_runs(folder: Path) -> None:
    """All run folders, in ``folder/runs``; ``folder`` is the working folder."""
    from cosearch.pipeline.run import start_run
    from cosearch.planning.plan import make_plan
    from cosearch.planning.task import resolve_task

    runs = folder / "runs"
    search("search", "--run", "finished", "--quiet", "--json", *OF_VECTORS, *PATHS)
    search("deploy", "runs/finished", "--seconds", "0.3", "--quiet", "--json")
    for name, (stage, words) in all_cut_runs().items():
        print(name, file=sys.stderr)
        config = resolve_task(overrides=words)
        try:
            start_run(make_plan(config), runs, name, f"cosearch search --run {name}", Cut(stage))
        except KeyboardInterrupt:
            continue
        raise SystemExit(f"{name} was not cut: there is no second update in {stage}")
    words = ["compare", "--strategies", "reinforce", "--seeds", "1", "--env", VECTORS, "--name", "compared", "--quiet"]
    values = [word for word in OF_VECTORS if not word.startswith(("env.name", "objective"))]
    search(*words, *values, "objective.latency_ratio=2")


def make_cut_teacher(folder: Path) -> None:
    """A teacher in training, cut at its second checkpoint."""
    from cosearch.teachers.train import TeacherRequest, train_teacher

    values = ("env.num_envs=4", "rl.rollout_steps=16", "rl.minibatch=32")
    request = TeacherRequest(VECTORS, "", 2048, 2, 1, 4, values=values)
    try:
        train_teacher(request, folder / "other.json", folder / "runs", "cosearch teacher", Cut("teacher", 10))
    except KeyboardInterrupt:
        return
    raise SystemExit("the teacher was not cut")


def search(*words: str) -> None:
    """A command of cosearch."""
    from cosearch.cli.app import main

    _done("cosearch", words, main(list(words)))


def tables(*words: str) -> None:
    """A command of latency_tables."""
    from latency_tables.commands import app

    _done("latency_tables", words, app(list(words), standalone_mode=False))


def _done(program: str, words: Sequence[str], code: object) -> None:
    if code not in (0, None):
        raise SystemExit(f"{program} {' '.join(words)}: exit code {code}")


def pack(runs: Path, target: Path, made: Path) -> None:
    """Pack run folders, the same bytes for the same files; absolute paths of this machine become ``/made``."""
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for path in (path for path in sorted(runs.rglob("*")) if path.is_file() and _kept(path)):
            data = path.read_bytes()
            if path.suffix in (".json", ".jsonl"):
                data = data.replace(str(made).encode(), PLACE.encode())
            entry = tarfile.TarInfo(path.relative_to(runs.parent).as_posix())
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))


def _kept(path: Path) -> bool:
    """Whether a file of a run folder is kept: what the verbs write again is not, nor is a checkpoint that has a newer one."""
    newest = max(each.name for each in path.parent.glob("*.pt")) if path.parent.name == "checkpoints" else path.name
    shared = path.name == "supernet.pt" and "finished" not in path.parts
    return path.name == newest and not shared and path.name not in LEFT_OUT and not path.name.startswith("events.out")


def main() -> None:
    """Make the folder of this version and day."""
    import torch

    sys.path.insert(0, str(ROOT))
    version = next(line.split('"')[1] for line in (ROOT / "setup.py").read_text().splitlines() if "version=" in line)
    day = datetime.now(UTC).date().isoformat()
    target = ASSETS / f"v{version}-{day}"
    if target.exists():
        raise SystemExit(f"{target} exists: files of a version are kept as they are")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.chdir(folder)
        make_files(folder)
        made = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and "runs" not in path.parts}
        make_runs(folder)
        make_cut_teacher(folder)
        shutil.rmtree(next(path for path in (folder / "runs").glob("teacher-*-s1")))  # which is finished: its teacher is there
        target.mkdir(parents=True)
        for path, content in made.items():
            place = target / path.relative_to(folder)
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content.replace(str(folder).encode(), PLACE.encode()))
        pack(folder / "runs", target / "runs.tar.xz", folder)
    about: dict[str, object] = {
        "version": version,
        "made": day,
        "command": "python tests/support/make_assets.py",
        "torch": torch.__version__,
    }
    about["cut"] = {name: stage for name, (stage, _) in all_cut_runs().items()}
    (target / "ABOUT.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
