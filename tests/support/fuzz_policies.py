"""Readers of policies of other packages and of their normalisers for the fuzzer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from fuzz_rule import Reader, of_file
from policy_files import ACTIONS, FEATURES, Linear, actor_critic_weights, policy_model, sb3_zip

from cosearch.rl.foreign.understood import Said, TaskFacts

TASK = TaskFacts("e", (FEATURES,), ACTIONS)


def policy_file(folder: Path) -> Reader:
    """An ONNX file as `cosearch compress` takes it."""
    from cosearch.rl.foreign.readers import read_policy

    seed = policy_model({"logits": (Linear(FEATURES, ACTIONS, 0), None)}).SerializeToString()
    return of_file(folder / "policy.onnx", (seed,), lambda path: read_policy(path, TASK, Said()))


def stored_policy(folder: Path) -> Reader:
    """The file that it writes, as a run's teacher."""
    from cosearch.rl.foreign.readers import read_policy
    from cosearch.rl.teacher import find_teacher

    path = folder / "first.onnx"
    path.write_bytes(policy_model({"logits": (Linear(FEATURES, ACTIONS, 0), None)}).SerializeToString())
    seed = read_policy(path, TASK, Said()).stored()

    def read(path: Path) -> object:
        record = find_teacher(str(path), "e")
        assert record is not None
        return record.open_network((FEATURES,), ACTIONS)

    return of_file(folder / "stored.onnx", (seed,), read)


def zipped_policy(folder: Path) -> Reader:
    """A zip in the layout of stable-baselines3."""
    from cosearch.rl.foreign.readers import read_policy

    seed = sb3_zip(folder / "seed.zip", actor_critic_weights()).read_bytes()
    return of_file(folder / "policy.zip", (seed,), lambda path: read_policy(path, TASK, Said()))


def normaliser(folder: Path) -> Reader:
    """Statistics as numpy's archive."""
    from cosearch.rl.foreign.normaliser import read_normaliser

    buffer = io.BytesIO()
    np.savez(buffer, mean=np.zeros(FEATURES), var=np.ones(FEATURES))
    return of_file(folder / "normaliser.npz", (buffer.getvalue(),), lambda path: read_normaliser(path, (FEATURES,)))


def plain_normaliser(folder: Path) -> Reader:
    """Statistics as JSON."""
    from cosearch.rl.foreign.normaliser import read_normaliser

    seed = json.dumps({"mean": [0.0] * FEATURES, "std": 2.0, "clip": 5}).encode()
    return of_file(folder / "normaliser.json", (seed,), lambda path: read_normaliser(path, (FEATURES,)))


MAKERS = {
    "policy.onnx": policy_file,
    "stored.onnx": stored_policy,
    "policy.zip": zipped_policy,
    "normaliser.npz": normaliser,
    "normaliser.json": plain_normaliser,
}
