"""A made-up finished run whose ``agent.onnx`` is a real exported network, for the tests of the bundle and of its deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import report_fake_run
import torch

from cosearch.deploy.bundle.folder import AS_EXPORTED, BundleOptions, write_bundle
from cosearch.deploy.export import export_agent
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.network import AgentNetwork, mlp
from cosearch.space.parts import MASK, Part, frame_shape_of, pack
from cosearch.testing.conformance import seeded
from latency_tables.opspec import OpSpec

IMAGE = (8, 8, 3)
IMAGES = {"categorical": IMAGE, "grey": (8, 8, 1)}
MASKED = (Part("features", "vector", (3,)), Part(MASK, "mask", (4,)))
LOW, HIGH = (None, -1.0), (2.0, 1.0)
SCALE, SHIFT = (1.5, 0.5), (0.25, -0.25)


def network(kind: str) -> AgentNetwork:
    """An image agent with four actions (``categorical``, and of ``grey`` images); one of three features with two continuous
    actions (``gaussian``); one of three features with four actions and a memory (``memory``), or a mask (``masked``)."""
    if kind in IMAGES:
        ops = [
            OpSpec("stem", IMAGES[kind][2], 8, 8, 8, 3, 1, 1),
            OpSpec("conv", 8, 8, 8, 8, 3, 1, 1),
            OpSpec("head", 8, 8, 8, 5, hidden=16),
        ]
        net = AgentNetwork(ops, seeded(0))
    elif kind == "memory":
        ops = [OpSpec("linear", 3, 1, 1, 8, activation="tanh"), OpSpec("lstm", 8, 1, 1, 8, hidden=5, activation="none")]
        net = AgentNetwork([*ops, OpSpec("head", 8, 1, 1, 5, activation="none")], seeded(0))
    elif kind == "masked":
        net = AgentNetwork(mlp((3,), 4, (8,)), seeded(0), parts=MASKED)
    else:
        space = mlp_space(MlpConfig(stem_width=16, stage_widths=(16,), stage_repeats=(3,)), (3,), 2)
        net = AgentNetwork(space.architecture((1, 3, 4)).ops(), seeded(0), policy="gaussian")
        with torch.no_grad():
            net.ends.log_std.fill_(-0.7)
    with torch.no_grad():
        net.blocks[-1].outputs.weight.mul_(120)  # actions that differ visibly between observations
    return net


def observations(kind: str, count: int = 90, seed: int = 2) -> np.ndarray:
    """Random images or vectors."""
    random = np.random.default_rng(seed)
    if kind in IMAGES:
        return random.integers(0, 256, (count, *IMAGES[kind]), dtype=np.uint8)
    vectors = random.normal(0, 2, (count, 3)).astype(np.float32)
    if kind != "masked":
        return vectors
    allowed = random.random((count, 4)) < 0.5
    allowed[np.arange(count), random.integers(0, 4, count)] = True
    return pack(MASKED, {"features": vectors, MASK: allowed})


def make_run(path: Path, kind: str = "categorical", *, options: BundleOptions = AS_EXPORTED, first_action: int = 0) -> RunDir:
    """A finished run at ``path`` with its bundle."""
    report_fake_run.make_run(path)
    seen = observations(kind)
    begins = episode_begins() if kind == "memory" else None
    exported = export_agent(network(kind), path, seen, begins)
    record = replace(
        report_fake_run.agent_record(1e-3),
        parity=exported.parity,
        inputs=exported.inputs,
        outputs=exported.outputs,
        memory=exported.memory,
        preprocessing=exported.preprocessing,
        acting=acting(kind, first_action),
    )
    report_fake_run.write_json(path / "agent.json", to_json(record))
    shapes = {**IMAGES, "masked": frame_shape_of(MASKED)}
    shape, actions = list(shapes.get(kind, (3,))), (2 if kind == "gaussian" else 4)
    report_fake_run.change(path, "run.json", space__frame_shape=shape, space__num_actions=actions, format=1)
    run = RunDir.open(path)
    write_bundle(run, seen, options, begins=begins)
    return run


def episode_begins() -> np.ndarray:
    """Where episodes begin among the observations of an agent with a memory: ``[30, 3]``, of three environments."""
    return np.random.default_rng(3).random((30, 3)) < 0.15


def acting(kind: str, first_action: int) -> dict[str, object]:
    """How the agent acts, as ``agent.json`` says it."""
    if kind != "gaussian":
        names = ["noop", "left", "right", "fire"]
        parts = {"parts": [part.to_dict() for part in MASKED]} if kind == "masked" else {}
        return {"rule": "sample", "policy": "categorical", "first_action": first_action, "action_names": names, **parts}
    bounds = {"clip_low": list(LOW), "clip_high": list(HIGH), "scale": list(SCALE), "shift": list(SHIFT)}
    return {"rule": "sample", "policy": "gaussian", **bounds}


def runner(folder: Path) -> dict[str, Any]:
    """The runner as a module of its own."""
    space = {"__name__": "run_agent", "__file__": str(folder / "run_agent.py")}
    exec(compile((folder / "run_agent.py").read_text(encoding="utf-8"), "run_agent.py", "exec"), space)
    return space


def spoil_array(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Alter the stored values of one output of a bundle."""
    path = folder / "self_test" / f"{name}.npy"
    np.save(path, change(np.load(path)))
