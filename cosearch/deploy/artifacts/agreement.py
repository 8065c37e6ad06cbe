"""How alike two forms of one agent act: the same observations through both, their policies compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from latency_tables.board.runners import import_onnxruntime

BATCH = 64
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """Another form of an agent beside the float32 one, over the same observations.

    Attributes:
        greedy: share of observations with the same best action (a Gaussian's means are one: always 1), 0..1; of several discrete
            actions all have to be the same.
        kl: mean divergence of its policy from the float32 one, nats an observation: of softmax of the logits (the sum over
            several discrete actions), or of Gaussians of the same spread.
        value_error: mean absolute difference of the values.
        max_abs_difference: largest difference of any output.
        observations: how many.
    """

    greedy: float
    kl: float
    value_error: float
    max_abs_difference: float
    observations: int


def outputs_of(model: bytes, frames: np.ndarray) -> dict[str, np.ndarray]:
    """What an ONNX agent returns for observations, by output name.

    Args:
        model: serialized, for any batch size.
        frames: ``[observations, ...]`` as the agent takes them.
    """
    session = import_onnxruntime().InferenceSession(model, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    parts = [session.run(None, {entry.name: frames[start : start + BATCH]}) for start in range(0, len(frames), BATCH)]
    return {name: np.asarray(part[0] if name == "log_std" else np.concatenate(part)) for name, part in zip(names, zip(*parts))}


def compare_outputs(reference: Outputs, other: Outputs, action_sizes: tuple[int, ...] = ()) -> Agreement:
    """The agreement of two forms of one agent.

    Args:
        reference: of the float32 form, see :func:`outputs_of`.
        other: of the same observations.
        action_sizes: numbers of logits of several discrete actions; empty: they are of one.
    """
    if "mean" in reference:
        spread = np.exp(reference["log_std"].astype(np.float64))
        kl = (((other["mean"].astype(np.float64) - reference["mean"]) / spread) ** 2 / 2).sum(axis=1).mean()
        greedy = 1.0
    else:
        sides = [np.split(side["logits"], np.cumsum(action_sizes)[:-1], axis=1) for side in (reference, other)]
        logs = [(_log_softmax(ours), _log_softmax(theirs)) for ours, theirs in zip(*sides)]
        kl = sum((np.exp(ours) * (ours - theirs)).sum(axis=1) for ours, theirs in logs).mean()
        same = [ours.argmax(axis=1) == theirs.argmax(axis=1) for ours, theirs in logs]
        greedy = float(np.all(same, axis=0).mean())
    return Agreement(
        greedy=greedy,
        kl=float(kl),
        value_error=float(np.abs(reference["value"] - other["value"]).mean()),
        max_abs_difference=max(float(np.abs(reference[name] - other[name]).max()) for name in reference),
        observations=len(reference["value"]),
    )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
