"""What the outputs of a policy's file mean: by their names, else by their shapes; two readings are refused, none is guessed.

Names as the packages' documented exports have them: ``actions``, ``values``, ``log_prob`` (stable-baselines3), ``logits``,
``mu``, ``log_std``, ``value`` (rl_games), ``actions`` (rsl_rl, Isaac Lab, mjlab), ``action`` or ``action_chunk`` (LeRobot).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosearch.rl.foreign.understood import MEANINGS, Said, TaskFacts
from latency_tables.errors import ConfigError, ShapeError
from latency_tables.text.reading import shown

NAMED = {
    "logits": ("logits", "action_logits", "policy_logits"),
    "probabilities": ("probs", "probabilities", "action_probs", "action_probabilities"),
    "action values": ("q", "q_values", "qvalues", "action_values"),
    "mean": ("mean", "mu", "means", "action_mean", "loc"),
    "action": ("action", "actions", "action_chunk", "output_actions"),
}
DISCRETE = ("logits", "probabilities", "action values", "action")
SPREADS = {"std": False, "sigma": False, "stddev": False, "log_std": True, "logstd": True, "log_sigma": True}
VALUES = ("value", "values", "state_value", "critic", "v")
NO_POLICY = (*VALUES, "log_prob", "log_probs", "entropy")
MEMORY = ("h_in", "c_in", "h_out", "c_out", "hidden", "state_in", "lstm", "gru", "hx", "cx", "rnn")
SUMS_TO_ONE = 1e-3  # probabilities in float16 do

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Meaning:
    """What the outputs of a file mean.

    Attributes:
        chosen, meaning, spread, spread_is_log, value: as in ``Understood``.
        notes: what was concluded.
    """

    chosen: str
    meaning: str
    spread: str | None = None
    spread_is_log: bool = False
    value: str | None = None
    notes: tuple[str, ...] = ()


def meaning_of(path: Path, outputs: Outputs, task: TaskFacts, said: Said) -> Meaning:
    """What the outputs of a file mean for a task.

    Args:
        path: for messages.
        outputs: what the file gives for several observations, ``[observations, ...]`` each, by name.
        task: gives the actions.
        said: by the user.

    Raises:
        ShapeError: none of them is an action of this task.
        ConfigError: they can be read in several ways, what is said of them is wrong, or they are not finite.
    """
    _check_said(path, outputs, task, said)
    rows = len(next(iter(outputs.values())))
    candidates = {name: _readings(name, array, task, rows) for name, array in outputs.items()}
    if said.output_name is not None:
        candidates = {name: kinds for name, kinds in candidates.items() if name == said.output_name}
    if said.meaning is not None:
        fits = {name: array for name, array in outputs.items() if name in candidates and _fits(said.meaning, array, task, rows)}
        named = [name for name in fits if _named(name) == said.meaning]
        found = [(name, said.meaning) for name in (named or [name for name in fits if name.lower() not in NO_POLICY])]
    else:
        found = _best([(name, kind) for name, kinds in candidates.items() for kind in kinds])
    if not found:
        raise ShapeError(_no_policy(path, outputs, task, rows))
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise ConfigError(
            f"{path}: several outputs can be the policy's: {names}. Say which one and what it holds, e.g. "
            f"--outputs {found[0][1].replace(' ', '-')}:{found[0][0]}"
        )
    chosen, meaning = found[0]
    notes = []
    if said.meaning is None and meaning == "logits":
        _check_logits(path, chosen, outputs[chosen], task)
    if meaning == "probabilities" and not _look_like_probabilities(outputs[chosen], task):
        raise ConfigError(
            f"{path}: --outputs probabilities (distill.outputs=probabilities, or the output's name {chosen!r}) says what it is, "
            f"but for {rows} observations it is "
            f"{'negative' if (outputs[chosen] < 0).any() else f'sums of {shown(outputs[chosen].sum(1).round(3).tolist())}'}"
        )
    if said.meaning is None and _named(chosen) != meaning:
        notes.append(f"{chosen!r} is read as {meaning}, by its shape and dtype")
    if outputs[chosen].ndim == 3:
        notes.append(f"of each chunk of {outputs[chosen].shape[1]} actions in {chosen!r} the first one is taken")
    spread = None if task.box is None else next((n for n, a in outputs.items() if _is_spread(n, a, task, rows)), None)
    value = next((name for name, array in outputs.items() if name != chosen and _is_value(name, array, rows, outputs)), None)
    for name in (chosen, spread, value):
        if name is not None and not np.isfinite(outputs[name]).all():
            raise ConfigError(f"{path}: its output {name!r} is NaN or infinite on plain observations")
    is_log = SPREADS.get((spread or "").lower(), False)
    if spread is not None and not is_log and not (outputs[spread] > 0).all():
        raise ConfigError(
            f"{path}: its output {spread!r} is a standard deviation by its name, expected above 0, got "
            f"{shown(float(outputs[spread].min()))} on plain observations; where it holds logarithms export it as log_std"
        )
    return Meaning(chosen, meaning, spread, is_log, value, tuple(notes))


def is_memory(name: str) -> bool:
    """Whether an input's name is that of a recurrent state."""
    return any(word in name.lower() for word in MEMORY)


def _check_said(path: Path, outputs: Outputs, task: TaskFacts, said: Said) -> None:
    if said.meaning is not None and said.meaning not in MEANINGS:
        known = ", ".join(word.replace(" ", "-") for word in MEANINGS)
        raise ConfigError(f"--outputs must be one of {known}, with :NAME where several outputs could be it, got {said.outputs!r}")
    if said.output_name is not None and said.output_name not in outputs:
        raise ConfigError(f"{path}: there is no output {said.output_name!r}; it has {', '.join(outputs)}")
    possible = DISCRETE if task.box is None else ("mean", "action")
    if said.meaning is not None and said.meaning not in possible:
        kind = "discrete" if task.box is None else "vectors"
        raise ConfigError(
            f"--outputs {said.meaning.replace(' ', '-')}: the actions of {task.env} are {kind}, say {', '.join(possible)}"
        )


def _named(name: str) -> str | None:
    """The meaning that a name has in the packages' exports."""
    return next((kind for kind, names in NAMED.items() if name.lower().rpartition(".")[2] in names), None)


def _readings(name: str, array: np.ndarray, task: TaskFacts, rows: int) -> list[str]:
    """What one output can mean."""
    if name.lower() in NO_POLICY or name.lower() in SPREADS:
        return []
    named = _named(name)
    if task.box is not None and named in ("mean", "action"):
        return [named] * _fits(named, array, task, rows)
    if named in DISCRETE and task.box is None and _fits(named, array, task, rows):
        return [named]
    if task.box is not None:
        return ["mean"] * (named is None and _fits("mean", array, task, rows))
    if _fits("logits", array, task, rows):
        return ["logits"] * (named is None)
    return ["action"] * (named is None and array.dtype.kind in "iu" and _fits("action", array, task, rows))


def _fits(meaning: str, array: np.ndarray, task: TaskFacts, rows: int) -> bool:
    """Whether an output has the shape of that meaning."""
    if len(array) != rows:
        return False
    if task.box is not None:
        size = task.num_actions
        chunk = array.ndim == 3 and array.shape[2] == size
        return array.dtype.kind == "f" and (array.shape == (rows, size) or chunk or (size == 1 and array.shape == (rows,)))
    if meaning == "action":
        whole = array.size == rows and bool((array == np.round(array)).all())
        first = task.first_action
        return whole and bool((array >= first).all() and (array < first + task.num_actions).all())
    return array.dtype.kind == "f" and array.shape == (rows, task.num_actions)


def _best(found: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of several readings those that tell most of the policy; named ones before the others."""
    for kind in (*DISCRETE[:3], "mean", "action"):
        those = [(name, meaning) for name, meaning in found if meaning == kind]
        named = [(name, meaning) for name, meaning in those if _named(name) == kind]
        if those:
            return named or those
    return []


def _look_like_probabilities(array: np.ndarray, task: TaskFacts) -> bool:
    return task.num_actions > 1 and bool((array >= 0).all() and np.allclose(array.sum(1), 1.0, atol=SUMS_TO_ONE))


def _check_logits(path: Path, name: str, array: np.ndarray, task: TaskFacts) -> None:
    if _look_like_probabilities(array, task):
        raise ConfigError(
            f"{path}: its output {name!r} is never negative and sums to 1, as probabilities do and logits do not. Say "
            "--outputs probabilities or --outputs logits; in a search distill.outputs=probabilities (its logarithm is taken) or "
            "distill.outputs=logits"
        )


def _is_spread(name: str, array: np.ndarray, task: TaskFacts, rows: int) -> bool:
    return name.lower() in SPREADS and array.size in (task.num_actions, rows * task.num_actions)


def _is_value(name: str, array: np.ndarray, rows: int, outputs: Outputs) -> bool:
    """A named value, or the only unnamed output of one number an observation."""
    if array.shape not in ((rows,), (rows, 1)) or array.dtype.kind != "f":
        return False
    if name.lower() in VALUES:
        return True
    others = [n for n, a in outputs.items() if a.shape in ((rows,), (rows, 1)) and n.lower() not in NO_POLICY]
    return name.lower() not in NO_POLICY and _named(name) is None and len(others) == 1 and not any(n in VALUES for n in outputs)


def _no_policy(path: Path, outputs: Outputs, task: TaskFacts, rows: int) -> str:
    shapes = {name: [str(array.dtype), *array.shape] for name, array in outputs.items()}
    count = task.num_actions
    wanted = (
        f"[{rows}, {count}], the logits of this environment's {count} actions, or whole numbers [{rows}], the actions"
        if task.box is None
        else f"[{rows}, {count}], the mean or action of this environment's {count} components"
    )
    return (
        f"{path}: for {rows} observations its outputs have the shapes {shapes}, expected one of {wanted}. Is it a policy of "
        f"{task.env}? Where an output means something else than its name says: --outputs MEANING:NAME"
    )
