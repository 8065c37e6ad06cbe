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
        greedy: share of observations with the same best action (a Gaussian's means are one: always 1), 0..1.
        kl: mean divergence of its policy from the float32 one, nats an observation: of softmax of the logits, or of Gaussians
            of the same spread.
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


def compare_outputs(reference: Outputs, other: Outputs) -> Agreement:
    """The agreement of two forms of one agent.

    Args:
        reference: of the float32 form, see :func:`outputs_of`.
        other: of the same observations.
    """
    if "mean" in reference:
        spread = np.exp(reference["log_std"].astype(np.float64))
        kl = (((other["mean"].astype(np.float64) - reference["mean"]) / spread) ** 2 / 2).sum(axis=1).mean()
        greedy = 1.0
    else:
        ours, theirs = (_log_softmax(side["logits"]) for side in (reference, other))
        kl = (np.exp(ours) * (ours - theirs)).sum(axis=1).mean()
        greedy = float((reference["logits"].argmax(axis=1) == other["logits"].argmax(axis=1)).mean())
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
