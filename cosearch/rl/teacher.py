"""Teachers: frozen actor-critics that label what the student sees; small safe files with their provenance.

A teacher is ``NAME.json`` (what it is, how it was made, how well it plays) beside ``NAME.safetensors`` (float16 or float32
weights), or an ONNX file of any origin. Its forward pass runs once a rollout, never once an epoch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from cosearch.record.durable import write_bytes_atomic
from cosearch.registry import unknown_name
from cosearch.rl.foreign.network import LEAST_PROBABILITY, ForeignNetwork
from cosearch.rl.foreign.onnx_file import external_files, load_model
from cosearch.rl.foreign.opening import open_network
from cosearch.rl.foreign.remembering import RememberingNetwork
from cosearch.rl.foreign.understood import Said, TaskFacts, Understood, understood_in
from cosearch.rl.learning.labels import check_actions, label_in_time, tempered
from cosearch.rl.learning.lanes import Labelling, Lanes
from cosearch.rl.learning.subject import actor_of, on_device
from cosearch.rl.memory import recurrent
from cosearch.rl.rollout import Forward, Rollout
from cosearch.rl.typed import number, typed
from cosearch.space.ends import POLICIES
from cosearch.space.network import AgentNetwork
from cosearch.space.parts import Part, parts_from
from latency_tables.errors import ConfigError, CosearchError, ShapeError, UnknownNameError
from latency_tables.opspec import OpSpec
from latency_tables.text.reading import read_json, shown

TEACHERS = Path(__file__).parents[1] / "teachers"
FORMAT = "cosearch-teacher-1"
REWARD_STD_RANGE = (1e-9, 1e9)
CHUNK = 128  # frames of one forward pass: larger ones leave the cache


@dataclass(frozen=True)
class TeacherRecord:
    """What a teacher file says about itself.

    Attributes:
        name: of the file, without ending.
        env: environment that it plays.
        description: network and origin in words.
        ops: its blocks; none for an ONNX file.
        gamma: discount that its values mean; None: unknown, so its critic is not distilled.
        reward_std: divisor of the rewards that its values mean, in units of reward; None as for ``gamma``.
        provenance: command, seed, steps, levels, scores with intervals and episodes.
        path: of the JSON file, or of the ONNX file.
        policy: what its outputs mean, ``categorical`` or ``gaussian``.
        outputs: what the file of an ONNX teacher gives, ``logits`` or ``probabilities``; None: nobody said.
        layout: of the frames that such a file takes, ``channels_last`` or ``channels_first``; None: nobody said.
        made_for_sha256: SHA-256 of the weights that the file was written for; None: by a version that did not record it.
        understood: what an ONNX file says of itself; None for another teacher, and for a file that `cosearch compress` did not
            write, which is read when it is opened.
        parts: of the observations that it takes; empty: images or vectors.
        wiring: of the blocks; None: each reads the one before.

    Raises:
        ConfigError: the discount or the divisor of the rewards is out of its range, or there is no such policy.
    """

    name: str
    env: str
    description: str
    ops: tuple[OpSpec, ...]
    gamma: float | None
    reward_std: float | None
    provenance: dict[str, object]
    path: Path
    policy: str = "categorical"
    made_for_sha256: str | None = None
    outputs: str | None = None
    layout: str | None = None
    understood: Understood | None = None
    parts: tuple[Part, ...] = ()
    wiring: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        low, high = REWARD_STD_RANGE
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise ConfigError(f"{self.path}: gamma of a teacher must be from 0 to 1, got {self.gamma}")
        if self.reward_std is not None and not low <= self.reward_std <= high:
            raise ConfigError(f"{self.path}: reward_std of a teacher must be from {low:g} to {high:g}, got {self.reward_std}")
        if self.policy not in POLICIES:
            raise ConfigError(f"{self.path}: policy of a teacher must be one of {', '.join(POLICIES)}, got {shown(self.policy)}")

    @property
    def weights_path(self) -> Path:
        """The file that holds the weights."""
        return self.path if self.is_onnx else self.path.with_suffix(".safetensors")

    @property
    def is_onnx(self) -> bool:
        """Whether it is a user's own ONNX file."""
        return self.path.suffix == ".onnx"

    def open_network(
        self, frame_shape: tuple[int, ...], num_actions: int, first_action: int = 0
    ) -> ForeignNetwork | RememberingNetwork:
        """The network of an ONNX file.

        Args:
            frame_shape, num_actions: of the run's environment.
            first_action: its own number of action 0.

        Raises:
            ConfigError: it cannot be loaded, or can be read in two ways and nobody said which.
            ShapeError: inputs or outputs of another task.
        """
        task = TaskFacts(self.env, tuple(frame_shape), num_actions, first_action=first_action)
        return open_network(self.path, task, self.understood, Said(outputs=self.outputs, layout=self.layout))

    @property
    def is_greedy(self) -> bool:
        """Whether it takes its best action and does not sample, as the agent that learns from it then does."""
        return self.understood is not None and self.understood.acting == "greedy"

    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file, so that a run can tell later whether its teacher is still the same.

        Raises:
            ConfigError: the file cannot be read.
        """
        return self._sha256(self.weights_path)

    def further_sha256(self) -> dict[str, str]:
        """SHA-256 of each further file that the weights lie in, by name: the external data of an ONNX file.

        Raises:
            ConfigError: a file cannot be read.
        """
        return {name: self._sha256(self.path.parent / name) for name in external_files(self.path)} if self.is_onnx else {}

    def _sha256(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read as the weights of teacher {self.name!r}: {error}") from error


def list_teachers() -> list[TeacherRecord]:
    """All shipped teachers, by name."""
    return [read_record(path) for path in sorted(TEACHERS.glob("*.json"))]


def find_teacher(
    name: str,
    env: str,
    gamma: float | None = None,
    reward_std: float | None = None,
    *,
    outputs: str | None = None,
    layout: str | None = None,
) -> TeacherRecord | None:
    """The teacher that a configuration names.

    Args:
        name: ``none``, ``auto`` (the shipped teacher of ``env``, if any), a shipped name, or the path of a JSON or ONNX file.
        env: the environment of the run.
        gamma, reward_std: what the values of an ONNX file mean; None: unknown.
        outputs, layout: of an ONNX file, see :class:`TeacherRecord`.

    Raises:
        UnknownNameError: no such teacher.
        ConfigError: the file is damaged, or the teacher plays another game.
    """
    if name == "none":
        return None
    shipped = list_teachers()
    if name == "auto":
        return next((record for record in shipped if record.env == env), None)
    path = Path(name)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; distill.teacher expects a shipped name or the path of a teacher")
        return _onnx_record(path, env, gamma, reward_std, outputs, layout)
    if path.suffix == ".json":
        record = read_record(path)
    else:
        named = {r.name: r for r in reversed(shipped)}
        if name not in named:
            raise _unknown(name, [r.name for r in shipped])
        record = named[name]
    if record.env != env:
        raise ConfigError(
            f"teacher {record.name!r} plays {record.env}, the run plays {env}; "
            "`cosearch list teachers` shows all, `cosearch teacher --env ENV --out FILE.json` trains one"
        )
    return record


def _onnx_record(
    path: Path, env: str, gamma: float | None, reward_std: float | None, outputs: str | None, layout: str | None
) -> TeacherRecord:
    known = understood_in(load_model(path), path)
    if known is None:
        about = "a user's own ONNX file"
        return TeacherRecord(path.stem, env, about, (), gamma, reward_std, {}, path, outputs=outputs, layout=layout)
    if known.env != env:
        raise ConfigError(
            f"{path} was read as a policy of {known.env}, the run plays {env}: read it again, `cosearch compress POLICY --env "
            f"{env}`"
        )
    if outputs is not None or layout is not None:
        raise ConfigError(f"{path} says itself what it holds: leave distill.outputs and distill.layout out")
    return TeacherRecord(path.stem, env, known.origin, (), gamma, reward_std, {}, path, policy=known.policy, understood=known)


def _unknown(name: str, names: list[str]) -> UnknownNameError:
    return unknown_name(
        "teacher", name, names, "`cosearch list teachers` shows all, `cosearch teacher --env ENV --out FILE.json` trains one"
    )


def read_record(path: Path) -> TeacherRecord:
    """Read a teacher's JSON file.

    Raises:
        ConfigError: missing, damaged, or not a teacher.
    """
    values = read_json(Path(path), "a teacher", ConfigError)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else values
        raise ConfigError(f"{path}: expected a teacher of the format {FORMAT!r}, got {shown(found)}")
    try:
        return TeacherRecord(
            name=Path(path).stem,
            env=typed(str, values["env"]),
            description=typed(str, values["description"]),
            ops=tuple(OpSpec.from_dict(op) for op in typed(list, values["operations"])),
            gamma=number(values["gamma"]),
            reward_std=number(values["reward_std"]),
            provenance=typed(dict, values["provenance"]),
            path=Path(path),
            policy=typed(str, values.get("policy", "categorical")),
            made_for_sha256=typed(str, values["weights_sha256"]) if "weights_sha256" in values else None,
            parts=parts_from(values.get("parts", [])),
            wiring=tuple(tuple(inputs) for inputs in typed(list, values["wiring"])) if "wiring" in values else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, ShapeError) as error:
        raise ConfigError(f"{path}: cannot be read as a teacher: {type(error).__name__}: {str(error)[:200]}") from error


def save_teacher(
    path: Path,
    network: AgentNetwork,
    *,
    env: str,
    description: str,
    gamma: float,
    reward_std: float,
    provenance: dict[str, object],
) -> TeacherRecord:
    """Write ``path`` (.json) and the weights beside it in float16 (the statistics of vector observations in float32).

    Args:
        path: of the JSON file.
        network: trained actor-critic.
        env, description, gamma, reward_std, provenance: see :class:`TeacherRecord`.

    Raises:
        RunFailedError: the disk is full or refuses the write; what was there is intact.
    """
    kept = {name: torch.float32 for name, _ in network.named_buffers()}
    weights = network.state_dict().items()
    content = save({key: value.detach().cpu().contiguous().to(kept.get(key, torch.float16)) for key, value in weights})
    write_bytes_atomic(path.with_suffix(".safetensors"), content)
    values = {
        "format": FORMAT,
        "env": env,
        "description": description,
        "gamma": gamma,
        "reward_std": reward_std,
        "policy": network.ends.policy,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "provenance": provenance,
        "operations": [op.to_dict() for op in network.ops],
    }
    if network.ends.parts:
        values |= {"parts": [part.to_dict() for part in network.ends.parts], "wiring": [list(i) for i in network.wiring]}
    write_bytes_atomic(path, (json.dumps(values, indent=1) + "\n").encode())
    return read_record(path)


class Teacher:
    """A loaded teacher.

    Args:
        record: which one.
        device: where it runs; an ONNX file always runs on the CPU.
        bf16: bfloat16 autocast; an ONNX file has its own precision.
        frame_shape, num_actions, first_action: of the run's environment; needed for an ONNX file.
        temperature: of what students learn, see ``DistillConfig``; it plays as it is.

    Raises:
        ConfigError: the weights are missing, damaged or of another network.
        ShapeError: an ONNX file has other inputs or outputs than such an agent's.
    """

    def __init__(
        self,
        record: TeacherRecord,
        *,
        device: torch.device,
        bf16: bool,
        frame_shape: tuple[int, ...] = (),
        num_actions: int = 0,
        first_action: int = 0,
        temperature: float = 1.0,
    ) -> None:
        self.record, self.gives_values, self.temperature = record, True, temperature
        self.forward: Forward
        self.plays: Forward  # the same as policy outputs, for an evaluation
        if record.is_onnx:
            network = record.open_network(frame_shape, num_actions, first_action)
            self.gives_values = network.understood.value is not None
            self.forward, self.plays = network, network.plays
        else:
            self.forward = self.plays = actor_of(on_device(load_network(record), device), device, bf16)

    def log_probs(self, frames: Tensor) -> Tensor:
        """Log-probabilities ``[batch, actions]`` that students learn; of one that gives actions alone nearly 0 for its action.

        Args:
            frames: ``[batch, *frame_shape]``.
        """
        if (outputs := self.forward(frames)[0]).is_floating_point():
            return F.log_softmax(outputs.float() / self.temperature, -1)
        return self.plays(frames)[0].clamp(min=LEAST_PROBABILITY).log()

    def labelling(self, lanes: Lanes) -> Labelling | None:
        """The labels of a rollout in the making, computed in ``lanes``; None of a teacher with a memory: it needs their order."""
        return None if recurrent(self.forward) is not None else Labelling(self.forward, lanes, CHUNK)

    def label(self, rollout: Rollout, labelling: Labelling | None = None, memory: Tensor | None = None) -> Tensor | None:
        """Fill ``rollout.teacher_policy`` and ``teacher_value``, see :class:`Rollout`.

        Args:
            rollout: the experience.
            labelling: this teacher's, which has seen the rollout's frames already; None: they are seen now.
            memory: ``[envs, memory_size]``, of a teacher that has one, before the rollout; None: all its episodes begin.

        Returns:
            The teacher's memory after the rollout; None where it has none.

        Raises:
            ShapeError: the student has another number of actions, or the steps of the rollout are in no order.
        """
        if (remembers := recurrent(self.forward)) is not None:
            return label_in_time(remembers, rollout, memory, CHUNK, self.temperature, values=self.gives_values)
        if labelling is None:
            labelling = Labelling(self.forward, Lanes(), CHUNK)
            labelling.frames(rollout.frames.flatten(0, 1), rollout.value.numel())
        parts = labelling.result()
        outputs, shape = torch.cat([part[0] for part in parts]), rollout.value.shape
        if outputs.is_floating_point():
            check_actions(rollout, outputs.shape[-1])
            outputs = tempered(rollout.policy, outputs, self.temperature)
        rollout.teacher_policy = outputs.clone().view(*shape, -1)
        if self.gives_values:
            rollout.teacher_value = torch.cat([part[1] for part in parts]).float().clone().view(shape)
        return None


def load_network(record: TeacherRecord) -> AgentNetwork:
    """The teacher's network in float32 on the CPU, frozen.

    Raises:
        ConfigError: the weights are missing, damaged, of another network, or not those that the record was written for.
    """
    path = record.weights_path
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if record.made_for_sha256 not in (None, digest):
            raise ConfigError(
                f"its SHA-256 is {digest[:12]}..., the record was written for {str(record.made_for_sha256)[:12]}...: one of the "
                "two files was damaged or comes from another teacher. Get both again, or train it again"
            )
        network = AgentNetwork(record.ops, torch.Generator().manual_seed(0), record.wiring, record.policy, record.parts)
        network.load_state_dict({key: value.float() for key, value in load(content).items()})
        if not all(bool(weight.isfinite().all()) for weight in network.state_dict().values()):
            raise ConfigError("a weight is NaN or infinite")
    except (OSError, SafetensorError, RuntimeError, CosearchError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: cannot be read as the weights of teacher {record.name!r}: {reason}") from error
    return network.requires_grad_(False).eval()
