"""An exported agent that plays: its network run by ONNX Runtime, its actions chosen by the rule in ``agent.json``.

Needs numpy and onnxruntime, never torch: what is deployed must not depend on what trained it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosearch.record.json_record import from_json
from cosearch.record.results.agent import AgentRecord, check_agent_files
from cosearch.space.parts import Part, parts_from
from latency_tables.board.runners import import_onnxruntime, runtime_reason
from latency_tables.errors import NonFiniteError, RunFolderError, ShapeError
from latency_tables.text.reading import MAX_DIGITS, read_json, shown

Array = NDArray[np.generic]
FloatArray = NDArray[np.float64]
RULES = ("sample", "argmax")
DESCRIPTION = "the description of an agent"


@dataclass(frozen=True)
class ActingRule:
    """How actions follow from the outputs of the network; the part ``acting`` of ``agent.json``.

    Attributes:
        rule: ``sample`` from the policy, or ``argmax``: always the best action (value-based agents).
        policy: ``categorical`` (discrete actions), ``multi_categorical`` (vectors of whole numbers) or ``gaussian`` (vectors).
        low, high: bounds that an action vector is clipped to, one for each component, infinite where there is none; None for
            discrete actions.
        scale, shift: the environment's action is ``scale`` times the policy's plus ``shift``, one for each component.
        first_action: the environment's own number of action 0.
        channels_first: the environment's images have their channels first; the network takes them last.
        action_names: of the actions or of the components of an action vector; empty where the environment has none.
        action_sizes: of the factors of a vector of whole numbers; empty for other actions.
        parts: of an observation of several; empty: it is an image or a vector itself.
    """

    rule: str
    policy: str
    low: FloatArray | None = None
    high: FloatArray | None = None
    scale: FloatArray | float = 1.0
    shift: FloatArray | float = 0.0
    first_action: int = 0
    channels_first: bool = False
    action_names: tuple[str, ...] = ()
    action_sizes: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()


Observations = ArrayLike | Mapping[str, ArrayLike]


class Agent:
    """A deployed agent: observations in, actions out. Made by :func:`cosearch.load_agent`.

    Args:
        folder: holds ``agent.onnx`` and ``agent.json``.
        seed: of the sampled actions.
        threads: CPU threads of the runtime; one is what latencies are predicted and measured for.

    Attributes:
        observation_shape: of one observation: ``(height, width, channels)`` or ``(features,)``; of several parts the first one's.
        observation_dtype: uint8 for images, float32 for vectors.
        rule: how it acts.

    Raises:
        RunFolderError: the folder has no exported agent, its description cannot be read, or it describes another file.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, folder: Path, *, seed: int = 0, threads: int = 1) -> None:
        described = folder / AgentRecord.FILE
        self.rule = read_rule(described)
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = folder / "agent.onnx"
        if not model.is_file():
            raise RunFolderError(f"{folder} has no agent.onnx; `cosearch resume {folder}` goes on to the export")
        content = read_json(described, DESCRIPTION, RunFolderError, digits=MAX_DIGITS)
        record = from_json(AgentRecord, content, described)
        check_agent_files(folder, record)
        try:
            self._session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a dozen classes of its own without a common root
            raise RunFolderError(f"{model} cannot be loaded: {runtime_reason(error)}") from error
        entry, *further = self._session.get_inputs()
        self._kept = record.memory
        if [given.name for given in further][max(0, len(self.rule.parts) - 1) :] != (
            [] if self._kept is None else [self._kept.input]
        ):
            raise RunFolderError(
                f"{model} takes {[given.name for given in further]} beside the observations, {AgentRecord.FILE} says otherwise; "
                f"`cosearch export {folder}` writes it again"
            )
        self._input: str = entry.name
        self._names: list[str] = [output.name for output in self._session.get_outputs()]
        self.observation_shape: tuple[int, ...] = tuple(entry.shape[1:])
        self.observation_dtype = np.dtype(np.uint8 if len(self.observation_shape) == 3 else np.float32)
        self.reset(seed)

    @property
    def has_memory(self) -> bool:
        """Whether the agent carries something from one observation to the next: call :meth:`reset` where an episode begins."""
        return self._kept is not None

    def reset(self, seed: int | None = None, *, ended: ArrayLike | None = None) -> None:
        """Begin an episode: what an agent with a memory remembers is cleared; one without has nothing to clear.

        Args:
            seed: begins the random numbers of the sampled actions again, too; None: they go on.
            ended: of a batch ``[batch]``, bool: clear the memory of these only; None: of all.

        Raises:
            ShapeError: ``ended`` is of another batch than the last observations.
        """
        if seed is not None:
            self._random = np.random.default_rng(seed)
        if ended is None:
            self._memory: Array | None = None
        elif self._kept is not None and self._memory is not None:
            rows = np.asarray(ended, np.bool_)
            if rows.shape != (len(self._memory),):
                raise ShapeError(f"the agent remembers {len(self._memory)} episodes, ended has the shape {list(rows.shape)}")
            initial = np.array(self._kept.initial, np.float32)
            self._memory = np.where(rows[:, None], initial, self._memory)

    def __call__(self, observation: Observations, *, greedy: bool = False) -> int | Array:
        """The action for one observation, as ``env.step`` of Gymnasium takes it.

        Args:
            observation: ``[height, width, channels]`` or ``[height, width]``, uint8; or ``[features]``, any floats. Images with
                their channels first where the environment has such. Of several parts a dictionary of them by name.
            greedy: the most likely action (of a Gaussian its mean), whatever the rule.

        Returns:
            The number of a discrete action, or a vector ``[size]``, float32, or int64 where its components are whole numbers.
        """
        chosen = self.act(batch_of_one(observation), greedy=greedy)[0]
        return int(chosen) if self.rule.policy == "categorical" else np.asarray(chosen)

    def act(self, observations: Observations, *, greedy: bool = False) -> Array:
        """The actions for a batch of observations.

        Args:
            observations: ``[batch, height, width, channels]`` or ``[batch, height, width]``, uint8; or ``[batch, features]``; or
                a dictionary of parts by name, each ``[batch, ...]`` as the environment gives it.
            greedy: the most likely actions (of a Gaussian the means), whatever the rule.

        Returns:
            ``[batch]``, int64, as the environment numbers them, ``[batch, factors]``, int64, or ``[batch, size]``, float32,
            within the bounds of the action space.

        Raises:
            ShapeError: other observations than the agent was trained on.
            NonFiniteError: the network returned NaN or infinity; an agent with a memory does not remember it.
        """
        before, outputs = self._memory, self.outputs(observations)
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                self._memory = before  # what came of it is not remembered
                raise NonFiniteError(f"the agent's {name} is NaN or infinite; an observation with NaN in it does that")
        greedy = greedy or self.rule.rule == "argmax"
        if self.rule.policy == "gaussian":
            mean = outputs["mean"].astype(np.float64)
            spread = np.exp(outputs["log_std"].astype(np.float64))
            chosen = mean if greedy else mean + spread * self._random.standard_normal(mean.shape)
            return np.clip(self.rule.scale * chosen + self.rule.shift, self.rule.low, self.rule.high).astype(np.float32)
        logits = outputs["logits"].astype(np.float64)
        if self.rule.action_sizes:
            factors = np.split(logits, np.cumsum(self.rule.action_sizes)[:-1], axis=1)
            return np.stack([self._chosen(factor, greedy) for factor in factors], axis=1)
        return self._chosen(logits, greedy) + self.rule.first_action

    def _chosen(self, logits: FloatArray, greedy: bool) -> NDArray[np.int64]:
        """One of some discrete actions for each row of ``[batch, actions]``: ``[batch]``, int64."""
        if greedy:
            return logits.argmax(axis=1)
        reached = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
        drawn = self._random.random((len(logits), 1)) * reached[:, -1:]
        return (reached <= drawn).sum(axis=1)  # the first action whose cumulative probability exceeds the draw

    def outputs(self, observations: Observations) -> dict[str, Array]:
        """What the network returns for a batch of observations; an agent with a memory remembers them.

        Args:
            observations: as for :meth:`act`.

        Returns:
            ``logits`` ``[batch, actions]``, or ``mean`` ``[batch, size]`` and ``log_std`` ``[size]``; and ``value`` ``[batch]``.

        Raises:
            ShapeError: other observations than the agent was trained on, or another batch than it remembers.
        """
        if self.rule.parts:
            feed = {part.name: _part_of(part, observations) for part in self.rule.parts}
        elif isinstance(observations, Mapping):
            raise ShapeError(f"the agent takes one observation [batch, {self.observation_shape}], got a dictionary")
        else:
            feed = {self._input: self._checked(np.asarray(observations))}
        batch = len(next(iter(feed.values())))
        found: list[Array] = self._session.run(None, {**feed, **self._remembered(batch)})
        named = dict(zip(self._names, found))
        if self._kept is not None:
            self._memory = named.pop(self._kept.output)
        return named

    def _remembered(self, batch: int) -> dict[str, Array]:
        """The memory as an input of the file; nothing of an agent that has none."""
        if self._kept is None:
            return {}
        if self._memory is None:
            self._memory = np.tile(np.array(self._kept.initial, np.float32), (batch, 1))
        if len(self._memory) != batch:
            raise ShapeError(
                f"the agent remembers {len(self._memory)} episodes, got {batch} observations: call reset() where others begin"
            )
        return {self._kept.input: self._memory}

    def _checked(self, given: Array) -> Array:
        shape = self.observation_shape
        if self.rule.channels_first and given.ndim == 4:
            given = np.moveaxis(given, 1, -1)
        if len(shape) == 3 and shape[2] == 1 and given.ndim == 3:
            given = given[..., None]
        fits = given.shape[1:] == shape and (
            given.dtype == np.uint8 if self.observation_dtype == np.uint8 else given.dtype.kind in "bfiu"
        )
        if not fits:
            raise ShapeError(
                f"the agent takes observations [batch, {', '.join(map(str, shape))}] in {self.observation_dtype}, "
                f"got {list(given.shape)} in {given.dtype}"
            )
        return np.ascontiguousarray(given, dtype=self.observation_dtype)


def batch_of_one(observation: Observations) -> Observations:
    """One observation as a batch of one.

    Args:
        observation: an array, or a dictionary of parts by name.
    """
    if isinstance(observation, Mapping):
        return {name: np.asarray(value)[None] for name, value in observation.items()}
    return np.asarray(observation)[None]


def _part_of(part: Part, observations: Observations) -> Array:
    """A part of observations as the file takes it: ``[batch, *part.shape]``.

    Raises:
        ShapeError: it is missing, or has another shape or dtype than the environment gives.
    """
    alone = not isinstance(observations, Mapping) and part.kind != "mask"
    value = observations if alone else observations.get(part.name) if isinstance(observations, Mapping) else None
    values = np.zeros(0) if value is None else np.asarray(value)
    if part.kind == "image" and part.shape[2] == 1 and values.ndim == 3 and part.layout == "channels_last":
        values = values[..., None]
    bytes_wanted = part.kind == "image" and part.bounds is None
    if values.shape[1:] != part.given_shape or values.dtype.kind not in ("u" if bytes_wanted else "biuf"):
        got = "nothing" if value is None else f"{list(values.shape)} in {values.dtype}"
        raise ShapeError(
            f"the agent takes {part.name} as [batch, {', '.join(map(str, part.given_shape))}] in {part.given_dtype}, got {got}"
        )
    return part.taken(values > 0 if part.kind == "mask" else values)


def read_rule(path: Path) -> ActingRule:
    """The acting rule of an exported agent.

    Args:
        path: of ``agent.json``.

    Raises:
        RunFolderError: the file is missing, is not JSON, or states no rule that is known.
    """
    content = read_json(path, DESCRIPTION, RunFolderError, digits=MAX_DIGITS)
    acting = content.get("acting") if isinstance(content, dict) else None
    acting = acting if isinstance(acting, dict) else {}
    rule, policy = acting.get("rule"), acting.get("policy", "categorical")
    if rule not in RULES or policy not in ("categorical", "multi_categorical", "gaussian"):
        raise RunFolderError(
            f"{path} does not say how the agent acts: acting.rule must be one of {', '.join(RULES)}, got {rule!r} with policy "
            f"{policy!r}; `cosearch export {path.parent}` writes it again"
        )
    names = acting.get("action_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RunFolderError(f"{path}: acting.action_names must be a list of words, got {names!r:.80}")
    names = tuple(names)
    sizes, parts = acting.get("action_sizes", []), parts_from(acting.get("parts", []))
    if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
        raise RunFolderError(f"{path}: acting.action_sizes must be a list of whole numbers, got {sizes!r:.80}")
    if policy != "gaussian":
        first = acting.get("first_action", 0)
        if type(first) is not int:
            raise RunFolderError(f"{path}: acting.first_action must be a whole number, got {first!r:.80}")
        channels_first = acting.get("layout") == "channels_first"
        return ActingRule(
            rule,
            policy,
            first_action=first,
            channels_first=channels_first,
            action_names=names,
            action_sizes=tuple(sizes),
            parts=parts,
        )
    low, high = (
        _bounds(acting.get(key), default, f"{path}: acting.{key}")
        for key, default in (("clip_low", -np.inf), ("clip_high", np.inf))
    )
    scale = _bounds(acting.get("scale", [1.0] * len(low)), 1.0, f"{path}: acting.scale")
    shift = _bounds(acting.get("shift", [0.0] * len(low)), 0.0, f"{path}: acting.shift")
    if not len(low) == len(high) == len(scale) == len(shift):
        raise RunFolderError(
            f"{path}: acting.clip_low, clip_high, scale and shift must have one number a component of the action"
        )
    return ActingRule(
        rule,
        policy,
        low,
        high,
        scale,
        shift,
        channels_first=acting.get("layout") == "channels_first",
        action_names=names,
        parts=parts,
    )


def _bounds(values: object, missing: float, where: str) -> FloatArray:
    """A list of numbers, with another in the place of null."""
    if not isinstance(values, list) or not all(value is None or type(value) in (int, float) for value in values):
        raise RunFolderError(f"{where} must be a list of numbers and nulls, got {shown(values)}")
    return np.array([missing if value is None else value for value in values], dtype=np.float64)
