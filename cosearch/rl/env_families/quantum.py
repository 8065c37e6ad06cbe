"""Quantum circuits that prepare Bell and GHZ states, built gate by gate.

Paper: Kuo, Fang & Chen, Quantum Architecture Search via Deep Reinforcement Learning (2021, arXiv 2104.07715).
Equations, with n qubits, rho the state of the circuit so far and |t> = (|0..0> + |1..1>) / sqrt 2 the target:
  start       : rho = |0..0><0..0|
  observation : tr(rho P_q) for each qubit q and Pauli matrix P in X, Y, Z: 3 n numbers in -1..1
  actions     : one gate of {U(pi/4), X, Y, Z, H, CNOT(q, q + 1 mod n)} for each q: 6 n; U(a) turns by a around the axis Z
  fidelity    : F = <t| rho |t>
  reward      : F - 0.01 and the end of the episode where F > 0.95, else -0.01; at most 20 gates
  noise       : with probability p each qubit that a gate touched suffers X, Y or Z, each as likely; when the state is read,
                each qubit is flipped (X) with probability p
The shortest circuits have n gates: H, then n - 1 CNOTs. Observations hide what the qubits share: |00> + |11> and |00> - |11> look
alike. Nothing is drawn, and every episode begins alike, so held-out episodes are those of the training.
The simulator is a few products of small matrices for all environments at once; a library's simulator takes one circuit at a time.
Differs from the paper in (of which we know the abstract and an unofficial release, qdevpsi3/quantum-arch-search):
1. An episode of 20 gates is truncated, so that its last value is bootstrapped; the release ends it.
2. Noise is exact, on density matrices: expectations and fidelity are the means over the release's sampled errors.
3. U is the rotation around Z, and noise is placed as above, as in the release; the text of the paper was not checked.
4. Four and five qubits are there as well; the paper and the release have Bell and GHZ states of two and three.
5. Several circuits are built side by side, and the agent normalises its observations, as for any task here.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import torch

from cosearch.record.state import State, read
from cosearch.rl.envs import ENVIRONMENTS, Box, EnvFamily, EnvOptions, Step
from latency_tables.errors import ConfigError
from latency_tables.text.reading import shown

TURN, ENOUGH, PRICE, MOST_GATES = math.pi / 4, 0.95, 0.01, 20
QUBITS = {"bell": 2, "ghz-3": 3, "ghz-4": 4, "ghz-5": 5}
PAULIS = {"x": np.array([[0, 1], [1, 0]]), "y": np.array([[0, -1j], [1j, 0]]), "z": np.array([[1, 0], [0, -1]])}
SINGLE = {
    "u": np.diag(np.exp([-0.5j * TURN, 0.5j * TURN])),
    **PAULIS,
    "h": np.array([[1, 1], [1, -1]]) / math.sqrt(2),
}  # gates on one qubit, in the order of the actions


def on_qubit(matrix: np.ndarray, qubit: int, qubits: int) -> np.ndarray:
    """A 2 x 2 matrix on one qubit as one on all, ``[2^qubits, 2^qubits]``; qubit 0 is the first factor."""
    return np.kron(np.kron(np.eye(2**qubit), matrix), np.eye(2 ** (qubits - qubit - 1)))


def gates_of(qubits: int) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The actions on so many qubits.

    Args:
        qubits: at least 2.

    Returns:
        Names such as ``h(0)`` and ``cnot(0,1)``; unitaries ``[actions, 2^qubits, 2^qubits]``; whether a gate touches a qubit,
        ``[actions, qubits]``, bool.
    """
    names, unitaries, touched = [], [], []
    zero, one = np.diag([1, 0]), np.diag([0, 1])
    for qubit in range(qubits):
        for name, matrix in SINGLE.items():
            names.append(f"{name}({qubit})")
            unitaries.append(on_qubit(matrix, qubit, qubits))
            touched.append({qubit})
        following = (qubit + 1) % qubits
        flip = on_qubit(one, qubit, qubits) @ on_qubit(PAULIS["x"], following, qubits)
        names.append(f"cnot({qubit},{following})")
        unitaries.append(on_qubit(zero, qubit, qubits) + flip)
        touched.append({qubit, following})
    return tuple(names), np.array(unitaries), np.array([[q in each for q in range(qubits)] for each in touched])


class QuantumEnv:
    """Circuits of one target, built side by side.

    Args:
        game: a key of :data:`QUBITS`.
        options: number of circuits; ``kwargs.noise``: probability of an error, 0..1, 0 where it is left out.

    Raises:
        ConfigError: another key in ``kwargs``, or a noise that is no probability.
    """

    action_box: Box | None = None
    exact_resume = True

    def __init__(self, game: str, options: EnvOptions) -> None:
        self.num_envs, self.qubits, self.noise = options.num_envs, QUBITS[game], _noise(options)
        self.frame_shape = (3 * self.qubits,)
        self.action_names, self._unitaries, self._touched = gates_of(self.qubits)
        self.num_actions = len(self.action_names)
        self._errors = [[on_qubit(pauli, q, self.qubits) for pauli in PAULIS.values()] for q in range(self.qubits)]
        self._paulis = np.array(reduce(list.__add__, self._errors))
        self._start = np.zeros((2**self.qubits, 2**self.qubits), np.complex128)
        self._start[0, 0] = 1.0
        self._density = np.repeat(self._start[None], self.num_envs, 0)
        self._gates = np.zeros(self.num_envs, np.int64)
        self._pending = np.zeros(self.num_envs, np.int64)

    def observe(self) -> np.ndarray:
        """See ``VectorEnv``: ``[num_envs, 3 qubits]``, float32; X, Y, Z of the first qubit, then of the next."""
        return self._expectations(self._as_read())

    def fidelity(self) -> np.ndarray:
        """``[num_envs]``: F of the circuits as they are, 0..1."""
        return self._fidelity(self._as_read())

    def _expectations(self, density: np.ndarray) -> np.ndarray:
        return np.einsum("eij,kji->ek", density, self._paulis).real.astype(np.float32)

    def _fidelity(self, density: np.ndarray) -> np.ndarray:
        return density[:, [0, 0, -1, -1], [0, -1, 0, -1]].sum(1).real / 2

    def _as_read(self) -> np.ndarray:
        density = self._density
        for flip, _, _ in self._errors if self.noise else ():
            density = (1 - self.noise) * density + self.noise * (flip @ density @ flip)
        return density

    def send(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``."""
        self._pending = np.asarray(actions)

    def receive(self) -> Step:
        """See ``VectorEnv``."""
        gates = self._unitaries[self._pending]
        self._density = gates @ self._density @ gates.conj().transpose(0, 2, 1)
        for qubit, errors in enumerate(self._errors if self.noise else ()):
            hit = self._touched[self._pending, qubit]
            before = self._density[hit]
            mixed = sum(error @ before @ error for error in errors) / len(errors)
            self._density[hit] = (1 - self.noise) * before + self.noise * mixed
        self._gates += 1
        read = self._as_read()
        fidelity, frames = self._fidelity(read), self._expectations(read)
        terminated = fidelity > ENOUGH
        truncated = ~terminated & (self._gates >= MOST_GATES)
        reward = (np.where(terminated, fidelity, 0.0) - PRICE).astype(np.float32)
        last = {int(i): frames[i].copy() for i in np.flatnonzero(truncated)}
        ended = terminated | truncated
        if ended.any():
            self._density[ended], self._gates[ended] = self._start, 0
            frames = self.observe()
        return Step(frames, reward, terminated, truncated, last)

    def state(self) -> State:
        """See ``VectorEnv``."""
        return {
            "density": torch.view_as_real(torch.from_numpy(self._density.copy())),
            "gates": torch.from_numpy(self._gates.copy()),
        }

    def restore(self, state: State) -> None:
        """See ``VectorEnv``."""
        self._density = torch.view_as_complex(read(state, "density", torch.Tensor).contiguous()).numpy().copy()
        self._gates = read(state, "gates", torch.Tensor).numpy().copy()

    def close(self) -> None:
        """Drop the actions that wait; nothing else is held."""
        self._pending = np.zeros(0, np.int64)


def _noise(options: EnvOptions) -> float:
    unknown = sorted(set(options.kwargs) - {"noise"})
    if unknown:
        raise ConfigError(f"env.kwargs.{unknown[0]}: quantum circuits take env.kwargs.noise alone, the probability of an error")
    noise = options.kwargs.get("noise", 0.0)
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0.0 <= noise <= 1.0:
        raise ConfigError(f"env.kwargs.noise must be a probability, 0 to 1, got {shown(noise)}")
    return float(noise)


RUN = {  # short episodes with one reward at their end: many environments, short rollouts, no smoothing of the rewards
    "env.num_envs": 32,
    "rl.rollout_steps": 32,
    "rl.epochs": 4,
    "rl.minibatch": 256,
    "rl.micro_batch": 256,
    "rl.lr": 1e-3,
    "rl.gamma": 0.98,
    "rl.bf16": False,
}
ENVIRONMENTS.register(
    EnvFamily(
        "quantum",
        "circuits that prepare Bell and GHZ states, gate by gate (Kuo et al. 2021)",
        tuple(QUBITS),
        QuantumEnv,
        teacher=RUN,
        run=RUN,
        takes_kwargs=True,
    )
)
