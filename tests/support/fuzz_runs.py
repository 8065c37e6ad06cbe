"""Readers of ``cosearch`` for the fuzzer: each as a function of a folder for its file."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from fuzz_rule import Reader, of_file

Maker = Callable[[Path], Reader]


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _run(folder: Path) -> Path:
    """A finished run, made up."""
    from report_fake_run import change, make_run

    from cosearch.planning.builtins import load_builtins

    load_builtins()
    run = make_run(folder / "run")
    change(run, "run.json", format=1)
    change(run, "agent.json", acting={"rule": "sample", "policy": "categorical", "first_action": 0, "action_names": []})
    return run


def architecture(folder: Path) -> Reader:
    """An architecture of ``sample``, and its network."""
    from cosearch.planning.builtins import load_builtins
    from cosearch.space.cells.cell import CellConfig, cell_space
    from cosearch.space.files import load_architecture
    from cosearch.space.kinds.chain import ChainConfig, chain_space
    from cosearch.space.kinds.mlp import MlpConfig, mlp_space
    from cosearch.testing.conformance import seeded

    load_builtins()
    chain = chain_space(ChainConfig(stage_channels=(4,), stage_repeats=(2,), stage_strides=(1,), hidden=8), (64, 64, 3), 15)
    mlp = mlp_space(MlpConfig(stem_width=16, stage_widths=(16,), stage_repeats=(3,)), (3,), 2)
    cells = cell_space(CellConfig(), (64, 64, 3), 15)
    made = [chain.architecture([0, 8]), mlp.architecture((1, 3, 4)), cells.sample(seeded(0))]

    def read(path: Path) -> object:
        found = load_architecture(path)
        return found.to_dict(), found.network(), found.space.size

    return of_file(folder / "architecture.json", tuple(_json(each.to_dict()) for each in made), read)


RUN_FILES = ("run.json", "summary.json", "agent.json", "architecture.json", "metrics.jsonl")


def _shortened(run: Path) -> dict[str, bytes]:
    """The contents of a run's files, its log cut to a few lines."""
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join([*lines[:3], *lines[-3:]]))
    contents = {name: (run / name).read_bytes() for name in RUN_FILES}
    return {name: content if name.endswith("l") else _json(json.loads(content)) for name, content in contents.items()}


def run_file(name: str) -> Maker:
    """A file of a run's folder, read with the others for the report."""

    def make(folder: Path) -> Reader:
        from cosearch.deploy.bundle.description import describe
        from cosearch.record.rundir import RunDir
        from cosearch.report.data import read_run
        from cosearch.report.terminal import render_summary

        run = _run(folder)
        seed = _shortened(run)[name]
        made = of_file(run / name, (seed,), lambda path: (read_run(run), render_summary(run), describe(RunDir.open(run))))
        return replace(made, name="run-architecture.json" if name == "architecture.json" else name)

    return make


def page(folder: Path) -> Reader:
    """The page of a run: all its files, one after the other."""
    from cosearch.report.data import read_run
    from cosearch.report.page import render_page

    run = _run(folder)
    seed = b"\n".join(_shortened(run).values())

    def read(content: bytes) -> object:
        lines = content.split(b"\n", len(RUN_FILES) - 1)
        for name, part in zip(RUN_FILES, lines):
            (run / name).write_bytes(part)
        return render_page(read_run(run))

    return replace(Reader("page.txt", (seed,), read), path=run / "page.txt")


def episodes(folder: Path) -> Reader:
    """``evaluation.json`` of a run, as the tables for SQL have it."""
    from cosearch.overview.folders import Place
    from cosearch.overview.rows import Row
    from cosearch.overview.tables import rows_of
    from cosearch.report.data import read_run

    run = _run(folder)
    row, read = Row(name="one", folder=run, state="finished"), read_run(run)
    seed = _json({"levels": "test", "actions": "sampled", "returns": [1.5, 2.0], "lengths": [3, 4], "successes": [True, None]})
    return of_file(run / "evaluation.json", (seed,), lambda path: list(rows_of("episodes", Place(run, run), row, read)))


def failures(folder: Path) -> Reader:
    """``failures.json`` of a comparison."""
    from cosearch.record.failures import read_failures

    return of_file(
        folder / "failures.json", (_json({"format": 1, "failed": {"a3cs-s0": "why"}}),), lambda path: read_failures(folder)
    )


def workers(folder: Path) -> Reader:
    """``workers.json`` of a comparison, as the report tells it."""
    from cosearch.record.workers import read_workers
    from cosearch.report.work import work_section

    attempt = {"name": "a3cs-s0", "where": "process 7", "began_s": 1.0, "ended_s": 2.5, "end": "lost", "why": "killed"}
    seed = _json({"sessions": [{"began_s": 1.0, "ended_s": 3.0, "attempts": [attempt, {**attempt, "slow": True}]}]})
    return of_file(folder / "workers.json", (seed,), lambda path: work_section(read_workers(folder), {"a3cs-s0": 1.0}))


def order(folder: Path) -> Reader:
    """``order.json`` of a search with several workers, as another search repeats it."""
    from cosearch.config.run import config_to_dict, resolve
    from cosearch.record.order import recorded_order

    def read(path: Path) -> object:
        return config_to_dict(resolve(options={"strategy.order": recorded_order(folder)}))

    return of_file(folder / "order.json", (_json({"order": [-1, -1, 1, 0]}),), read)


def recorded(folder: Path) -> Reader:
    """The configuration in ``run.json``, from which a resumed run goes on."""
    from cosearch.config.run import Config, config_to_dict
    from cosearch.planning.recorded import config_of
    from cosearch.record.rundir import RunDir

    run = _run(folder)
    whole = json.loads((run / "run.json").read_text())
    seed = _json(whole | {"config": config_to_dict(Config())})
    return replace(of_file(run / "run.json", (seed,), lambda path: config_of(RunDir.open(run))), name="config-run.json")


def events(folder: Path) -> Reader:
    """The moment in ``run.json`` from which TensorBoard counts."""
    from cosearch.record.events import EventWriter

    run = _run(folder)
    seed = _shortened(run)["run.json"]
    (run / "metrics.jsonl").write_bytes(b"")
    return replace(of_file(run / "run.json", (seed,), lambda path: EventWriter(run).close()), name="events-run.json")


def shared(folder: Path) -> Reader:
    """The shared weights of a run's search, for a supernet of other tensors."""
    import torch

    from cosearch.record.checkpoints import loaded

    buffer = io.BytesIO()
    torch.save(dict(torch.nn.Linear(2, 2).state_dict()), buffer)

    def read(path: Path) -> object:
        from latency_tables.errors import RunFolderError

        try:
            return torch.nn.Linear(2, 2).load_state_dict(loaded(path.read_bytes()))
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # as shared_supernet, whose supernet takes a second
            raise RunFolderError(str(error)) from error

    return of_file(folder / "supernet.pt", (buffer.getvalue(),), read)


def example(kind: Any) -> Any:
    """A value of a record's field, as ``json_record`` knows them: each list with one entry."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        kinds = [each for each in inner if each is not types.NoneType]
        return example(next(each for each in kinds if not (isinstance(each, type) and issubclass(each, Enum))))
    if origin is tuple:
        return (example(inner[0]),) if inner[-1] is ... else tuple(map(example, inner))
    if origin is Mapping:
        return {"x": example(inner[1])}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
        return kind(**{f.name: example(hints[f.name]) for f in fields if not f.metadata.get("further")})
    return {float: 1.0, int: 1, str: "x", bool: True, object: 1}[kind]


def record(name: str) -> Maker:
    """A further record of a run."""

    def make(folder: Path) -> Reader:
        from cosearch.record.json_record import to_json
        from cosearch.record.results.deployment import Deployments
        from cosearch.record.results.family import Family
        from cosearch.record.results.target_rounds import TargetRounds
        from cosearch.record.rundir import RunDir

        kind = {each.FILE: each for each in (Deployments, Family, TargetRounds)}[name]
        run = RunDir(folder, {})
        return of_file(folder / name, (_json(to_json(example(kind))),), lambda path: to_json(run.read(kind)))

    return make


def acting(folder: Path) -> Reader:
    """How an exported agent acts, as its player reads it."""
    from cosearch.deploy.player import read_rule

    gaussian = {"rule": "sample", "policy": "gaussian", "clip_low": [None, -1.0], "clip_high": [2.0, 1.0]}
    seeds = ({"rule": "argmax", "first_action": 1, "action_names": ["a"]}, gaussian | {"scale": [1.0, 2.0], "shift": [0, 0]})
    made = of_file(folder / "agent.json", tuple(_json({"acting": seed}) for seed in seeds), read_rule)
    return replace(made, name="acting-agent.json")


TOML = b"""seed = 3
device = "jetson"
[rl]
lr = 0.001
epochs = 3
[space]
name = "chain"
[space.values]
stage_repeats = [1, 2, 3]
"""


def toml(folder: Path) -> Reader:
    """A configuration file."""
    from cosearch.config.run import config_to_dict, resolve

    return of_file(folder / "run.toml", (TOML,), lambda path: config_to_dict(resolve(file=path)))


def words(folder: Path) -> Reader:
    """Words of the command line, one a line."""
    from cosearch.config.run import config_to_dict, resolve

    seeds = (b"rl.lr=3e-4\nspace.values.stage_repeats=[1, 2]\nenv.name=minatar:breakout", b'space.values={"hidden": 8}\nseed=1')

    def read(content: bytes) -> object:
        return config_to_dict(resolve(overrides=content.decode("utf-8", "surrogateescape").split("\n")))

    return Reader("words.txt", seeds, read)


def teacher(folder: Path) -> Reader:
    """A teacher's record, and the identity that a run keeps of it."""
    from cosearch.planning.identity import teacher_identity
    from cosearch.rl.teacher import TEACHERS, read_record

    shutil.copy(TEACHERS / "minatar-breakout.safetensors", folder / "teacher.safetensors")
    seed = (TEACHERS / "minatar-breakout.json").read_bytes()
    return of_file(folder / "teacher.json", (seed,), lambda path: teacher_identity(read_record(path)))


def weights(folder: Path) -> Reader:
    """The weights of a small teacher; its record says their digest."""
    from safetensors.torch import save

    from cosearch.rl.teacher import TeacherRecord, load_network
    from cosearch.space.network import AgentNetwork
    from cosearch.testing.conformance import seeded
    from latency_tables.opspec import OpSpec

    ops = (OpSpec("stem", 1, 4, 4, 2, 3, 1, 1), OpSpec("head", 2, 4, 4, 3, hidden=4))
    seed = save({key: value.half() for key, value in AgentNetwork(ops, seeded(0)).state_dict().items()})

    def read(path: Path) -> object:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return load_network(TeacherRecord("t", "e", "d", ops, 0.9, 1.0, {}, path.with_suffix(".json"), made_for_sha256=digest))

    return of_file(folder / "teacher.safetensors", (seed,), read)


def checkpoint(folder: Path) -> Reader:
    """A checkpoint whose name has the digest of its content."""
    import torch

    from cosearch.record.checkpoints import Checkpoints
    from cosearch.record.state import read, read_list, read_state

    def read_back(content: bytes) -> object:
        for old in folder.glob("*.pt"):
            old.unlink()
        (folder / f"000001-1-{hashlib.sha256(content).hexdigest()[:16]}.pt").write_bytes(content)
        state = Checkpoints(folder).load()
        assert state is not None
        return read(state, "step", int), read_list(state, "curve", float), read_state(state, "weights")

    buffer = io.BytesIO()
    torch.save({"stage": "search", "step": 3, "curve": [1.0, 2.0], "weights": {"w": torch.ones(3)}}, buffer)
    return replace(Reader("checkpoint.pt", (buffer.getvalue(),), read_back), path=folder / "checkpoint.pt")


def streams(folder: Path) -> Reader:
    """States of numpy's random generators, as a checkpoint holds them."""
    from cosearch.seeding import Streams

    saved = Streams(0).state_dict()
    name, text = next(iter(saved["numpy"].items()))

    def read(content: bytes) -> object:
        changed = {**saved["numpy"], name: content.decode("utf-8", "replace")}
        return Streams(0).load_state_dict({**saved, "numpy": changed})

    return Reader("stream.json", (text.encode(),), read)


def comparison(folder: Path) -> Reader:
    """``compare.json``, and the figures of its runs."""
    from made_comparison import made as made_runs

    from cosearch.compare.data import comparison as figures
    from cosearch.compare.page import markdown, terminal_tables
    from cosearch.compare.runs import read_comparison
    from cosearch.planning.builtins import load_builtins

    load_builtins()
    place = made_runs(folder / "c", {"random": [1.0, 2.0], "largest": [2.0, 3.0]})

    def read(path: Path) -> object:
        read_comparison(place)
        result = figures(place)
        return result.to_json(), markdown(result, ["scatter.png"]), terminal_tables(result)

    seed = json.loads((place / "compare.json").read_text())
    seed["runs"] = seed["runs"][:2]
    return of_file(place / "compare.json", (_json(seed),), read)


MAKERS: dict[str, Maker] = {
    "architecture.json": architecture,
    **{name: run_file(name) for name in ("run.json", "summary.json", "agent.json", "metrics.jsonl")},
    "run-architecture.json": run_file("architecture.json"),
    "page.txt": page,
    "config-run.json": recorded,
    "evaluation.json": episodes,
    "failures.json": failures,
    "workers.json": workers,
    "order.json": order,
    "events-run.json": events,
    "supernet.pt": shared,
    **{name: record(name) for name in ("deployments.json", "family.json", "rounds.json")},
    "acting-agent.json": acting,
    "run.toml": toml,
    "words.txt": words,
    "teacher.json": teacher,
    "teacher.safetensors": weights,
    "checkpoint.pt": checkpoint,
    "stream.json": streams,
    "compare.json": comparison,
}
