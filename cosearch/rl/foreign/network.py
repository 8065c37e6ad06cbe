"""A policy of any origin, run by ONNX Runtime on a task's own observations: what a student learns from, and how it plays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cosearch.rl.foreign.understood import Normaliser, Understood
from latency_tables.board.runners import import_onnxruntime, runtime_reason
from latency_tables.errors import ConfigError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LEAST_PROBABILITY = 1e-8  # whose logarithm is still finite


def open_session(path: Path, content: bytes) -> InferenceSession:
    """A session of ONNX Runtime on the CPU.

    Args:
        path: for messages.
        content: the serialized model.

    Raises:
        ConfigError: the runtime refuses it.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a dozen classes of its own without a common root
        raise ConfigError(f"{path}: cannot be loaded as an ONNX teacher: {runtime_reason(error)}") from error


class ForeignNetwork:
    """A foreign policy as a callable.

    Args:
        path: for messages.
        content: its graph, a serialized ONNX model.
        understood: what the graph takes and gives.

    Raises:
        ConfigError: the runtime refuses it.
    """

    def __init__(self, path: Path, content: bytes, understood: Understood) -> None:
        self.understood, self._path = understood, path
        self._session = open_session(path, content)
        given = {entry.name: entry for entry in understood.inputs}[understood.observation]
        self._dtype = np.dtype(given.dtype)
        wanted = [understood.chosen, understood.spread, understood.value]
        self._wanted = [name for name in wanted if name is not None]

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Observations ``[batch, *frame_shape]`` -> what is learned from, and the value.

        Returns:
            Logits ``[batch, actions]``; means and log standard deviations ``[batch, 2 size]``; where the file gives actions
            alone ``[batch, 1]``, int64, or ``[batch, size]``; all in the units of an agent's own policy. And the value
            ``[batch]``, NaN where it gives none.
        """
        return self.labels(self.outputs(frames.numpy()), len(frames))

    def labels(self, outputs: Mapping[str, np.ndarray], rows: int) -> tuple[Tensor, Tensor]:
        """What :meth:`__call__` returns, of the file's outputs.

        Args:
            outputs: ``[batch, ...]`` each, by name.
            rows: the batch.

        Returns:
            ``[batch, outputs]`` and ``[batch]``.
        """
        known, chosen = self.understood, outputs[self.understood.chosen]
        if known.value is None:
            value = torch.full((rows,), torch.nan)
        else:
            value = torch.from_numpy(outputs[known.value].reshape(rows).astype(np.float32))
        if known.meaning == "logits":
            return torch.from_numpy(chosen.astype(np.float32)), value
        if known.meaning == "probabilities":
            return torch.from_numpy(chosen.astype(np.float32)).clamp(min=LEAST_PROBABILITY).log(), value
        if known.policy == "categorical":
            if known.meaning == "action values":
                return torch.from_numpy(chosen.argmax(1)[:, None]), value
            return torch.from_numpy(chosen.reshape(rows, 1).astype(np.int64) - known.first_action), value
        mean = self._mean(chosen, rows)
        if known.spread is None:
            return mean, value
        spread = outputs[known.spread].astype(np.float32)
        log_std = torch.from_numpy(spread if known.spread_is_log else np.log(spread))
        log_std = log_std + torch.tensor(known.action_factor).abs().log() if known.action_factor else log_std
        return torch.cat([mean, log_std.reshape(-1, known.num_actions).expand(rows, -1)], 1), value

    def plays(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The same as an agent's policy outputs, so that it can be evaluated as one: see ``acting`` for how.

        Args:
            frames: ``[batch, *frame_shape]``.

        Returns:
            Logits ``[batch, actions]``, or ``[batch, 2 size]``; and the value ``[batch]``.
        """
        outputs, value = self(frames)
        return self.as_policy(outputs), value

    def as_policy(self, outputs: Tensor) -> Tensor:
        """Labels ``[batch, outputs]`` as an agent's policy outputs: ``[batch, actions]``, or ``[batch, 2 size]``."""
        if not outputs.is_floating_point():
            return F.one_hot(outputs[:, 0], self.understood.num_actions).float()
        if self.understood.policy == "gaussian" and outputs.shape[1] == self.understood.num_actions:
            return torch.cat([outputs, torch.zeros_like(outputs)], 1)
        return outputs

    def outputs(self, frames: np.ndarray, further: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """The outputs that are used, ``[batch, ...]`` each, by name; a spread that depends on nothing is given once.

        Args:
            frames: ``[batch, *frame_shape]``.
            further: other inputs, see :func:`run_rows`.

        Raises:
            ConfigError: the runtime cannot run it on them.
        """
        known = self.understood
        fed = as_taken(frames, known.normaliser, pixels=known.pixels, layout=known.layout, dtype=self._dtype)
        wanted = [*self._wanted, *(state.given for state in known.states)]
        return run_rows(self._session, self._path, known.observation, wanted, fed, known.batch, further)

    def _mean(self, chosen: np.ndarray, rows: int) -> Tensor:
        known = self.understood
        first = chosen[:, 0] if chosen.ndim == 3 else chosen
        mean = torch.from_numpy(first.reshape(rows, known.num_actions).astype(np.float32))
        mean = mean.tanh() if known.squashed else mean
        if known.action_factor:
            mean = mean * torch.tensor(known.action_factor) + torch.tensor(known.action_offset)
        return mean


def as_taken(
    frames: np.ndarray, normaliser: Normaliser | None, *, pixels: int | None, layout: str | None, dtype: np.dtype
) -> np.ndarray:
    """Observations as a file takes them.

    Args:
        frames: ``[batch, *frame_shape]``.
        normaliser: applied first; None: none.
        pixels: largest value of a pixel, 255 or 1; None for vectors.
        layout: of images; None for vectors.
        dtype: of the input.

    Returns:
        ``[batch, *frame_shape]``, or with the channels first.
    """
    x = frames
    if normaliser is not None:
        parts = (np.asarray(values) for values in (normaliser.mean, normaliser.deviation))
        mean, deviation = (part.reshape(frames.shape[1:]) if part.size > 1 else part for part in parts)
        x = (x - mean) / deviation
        x = x if normaliser.clip is None else np.clip(x, -normaliser.clip, normaliser.clip)
    if pixels == 1:
        x = x / np.float32(255)
    if layout == "channels_first":
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x, dtype=dtype)


def run_rows(
    session: InferenceSession,
    path: Path,
    observation: str,
    wanted: list[str],
    fed: np.ndarray,
    batch: str,
    further: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Run a model on a batch, at once where its first dimension is free, else one observation after the other.

    Args:
        session: of ONNX Runtime.
        path: for messages.
        observation: name of the input.
        wanted: names of outputs.
        fed: ``[batch, ...]`` as the input takes it.
        batch: ``free``, ``one`` or ``none``.
        further: other inputs by name: as the file takes them for the whole batch where it is free, else ``[batch, ...]``, one
            for each row.

    Raises:
        ConfigError: the runtime cannot run it.
    """
    try:
        others = further or {}
        if batch == "free":
            return dict(zip(wanted, map(np.asarray, session.run(wanted, {observation: fed, **others}))))
        alone = fed if batch == "none" else fed[:, None]
        rows = [session.run(wanted, {observation: row, **{n: a[i] for n, a in others.items()}}) for i, row in enumerate(alone)]
    except Exception as error:  # the runtime raises a dozen classes of its own without a common root
        raise ConfigError(f"{path}: cannot run {len(fed)} observations: {runtime_reason(error)}") from error
    found = {}
    for i, name in enumerate(wanted):
        parts = [np.asarray(row[i]) for row in rows]
        stacked = np.stack(parts) if batch == "none" or parts[0].ndim == 0 or parts[0].shape[0] != 1 else np.concatenate(parts)
        found[name] = stacked
    return found
