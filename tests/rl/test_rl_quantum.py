"""Quantum circuits: states, observations, rewards and noise against qiskit, and the shortest circuits by breadth-first search."""

import math

import numpy as np
import pytest

from cosearch.rl.env_families.quantum import ENOUGH, MOST_GATES, QUBITS
from cosearch.rl.envs import ENVIRONMENTS, EnvOptions, make_env
from cosearch.testing.conformance import check_environment
from latency_tables.errors import ConfigError

info = pytest.importorskip("qiskit.quantum_info", reason="qiskit is not installed")
library = pytest.importorskip("qiskit.circuit.library")
GATES = {
    "u": library.RZGate(math.pi / 4), "x": library.XGate(), "y": library.YGate(), "z": library.ZGate(), "h": library.HGate(),
    "cnot": library.CXGate(),
}  # fmt: skip


def target_of(qubits):
    return info.Statevector((np.eye(2**qubits)[0] + np.eye(2**qubits)[-1]) / math.sqrt(2))


def parsed(name):
    """``cnot(0,1)`` -> its gate of qiskit's and its qubits."""
    gate, _, rest = name.partition("(")
    return GATES[gate], [int(part) for part in rest.rstrip(")").split(",")]


def pauli(letter, qubit, qubits):
    return info.Pauli("".join(letter if q == qubit else "I" for q in reversed(range(qubits))))  # qubit 0 is the last letter


def depolarised(state, noise, qubits):
    """Each of ``qubits`` suffers X, Y or Z with probability ``noise`` in all, by Kraus operators."""
    kraus = info.Kraus([math.sqrt(weight) * info.Pauli(p).to_matrix() for p, weight in
                        (("I", 1 - noise), ("X", noise / 3), ("Y", noise / 3), ("Z", noise / 3))])  # fmt: skip
    for qubit in qubits:
        state = state.evolve(kraus, [qubit])
    return state


def flipped(state, noise, qubits):
    kraus = info.Kraus([math.sqrt(1 - noise) * np.eye(2), math.sqrt(noise) * info.Pauli("X").to_matrix()])
    for qubit in range(qubits):
        state = state.evolve(kraus, [qubit])
    return state


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("game", ["bell", "ghz-3"])
def test_random_circuits_equal_those_of_the_library(game, noise):
    qubits, steps = QUBITS[game], 45
    env = make_env(f"quantum:{game}", EnvOptions(2, 0, kwargs={"noise": noise} if noise else {}))
    assert env.num_actions == 6 * qubits and env.frame_shape == (3 * qubits,)
    stream, states, gates, ends = np.random.default_rng(1), [info.DensityMatrix.from_label("0" * qubits)] * 2, [0, 0], set()
    for _ in range(steps):
        actions = stream.integers(env.num_actions, size=2)
        if gates[0] == 2:  # so that some episodes reach the target
            actions[0] = env.action_names.index("h(0)")
        env.send(actions)
        step = env.receive()
        for i, action in enumerate(actions):
            gate, where = parsed(env.action_names[action])
            states[i] = depolarised(states[i].evolve(gate, where), noise, where)
            gates[i] += 1
            read = flipped(states[i], noise, qubits)
            seen = [read.expectation_value(pauli(p, q, qubits)).real for q in range(qubits) for p in "XYZ"]
            fidelity = info.state_fidelity(read, target_of(qubits))
            assert step.terminated[i] == (fidelity > ENOUGH) and step.truncated[i] == (not step.terminated[i] and gates[i] == 20)
            assert step.reward[i] == pytest.approx(fidelity - 0.01 if fidelity > 0.95 else -0.01, abs=1e-6)
            frame = step.last_frames[i] if step.truncated[i] else step.frames[i]
            if step.terminated[i] or step.truncated[i]:
                ends.add("target" if step.terminated[i] else "limit")
                states[i], gates[i] = info.DensityMatrix.from_label("0" * qubits), 0
                assert step.frames[i] == pytest.approx([0, 0, 1 - 2 * noise] * qubits)
            if not step.terminated[i]:
                assert frame == pytest.approx(seen, abs=1e-6)
    assert "limit" in ends


@pytest.mark.parametrize("game, gates", [("bell", 2), ("ghz-3", 3)])
def test_the_shortest_circuit_pays_most_and_no_shorter_one_reaches_the_target(game, gates):
    qubits = QUBITS[game]
    env = make_env(f"quantum:{game}", EnvOptions(1, 0))
    matrices = [info.Statevector.from_label("0" * qubits)]
    target, circuits, found = target_of(qubits), [()], []
    seen = {tuple(np.round(matrices[0].data, 6))}
    while not found:  # breadth first, states of one length after the other
        grown = [(one.evolve(*parsed(name)), (*path, name)) for one, path in zip(matrices, circuits) for name in env.action_names]
        found = [path for state, path in grown if info.state_fidelity(state, target) > 0.95]
        fresh = {tuple(np.round(state.data, 6)): (state, path) for state, path in grown}
        matrices, circuits = zip(*(pair for key, pair in fresh.items() if key not in seen))
        seen |= set(fresh)
    assert {len(path) for path in found} == {gates}
    for name in found[0]:
        env.send(np.array([env.action_names.index(name)]))
        step = env.receive()
    assert step.terminated[0] and step.reward[0] == pytest.approx(0.99)


def test_an_episode_of_twenty_gates_is_cut_with_its_last_frame():
    env = make_env("quantum:bell", EnvOptions(1, 0))
    for n in range(1, MOST_GATES + 1):
        env.send(np.array([env.action_names.index("x(1)")]))
        step = env.receive()
        assert step.truncated[0] == (n == 20) and not step.terminated[0]
    assert step.last_frames[0] == pytest.approx([0, 0, 1, 0, 0, 1]) and step.reward[0] == pytest.approx(-0.01)


def test_observations_hide_the_sign_between_the_two_halves():
    env = make_env("quantum:bell", EnvOptions(2, 0))
    for pair in (("h(0)", "x(0)"), ("u(1)", "h(0)"), ("cnot(0,1)", "cnot(0,1)")):
        env.send(np.array([env.action_names.index(name) for name in pair]))
        env.receive()
    plus, minus = env.observe()  # the first one reached the target and began anew
    assert plus == pytest.approx([0, 0, 1, 0, 0, 1]) and minus == pytest.approx([0, 0, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("game", QUBITS)
def test_states_are_saved_and_restored(game):
    check_environment(ENVIRONMENTS.get("quantum"), game, steps=25)


@pytest.mark.parametrize("kwargs", [{"noise": -0.1}, {"noise": 1.5}, {"noise": "much"}, {"noise": True}, {"nois": 0.1}])
def test_wrong_values_are_refused(kwargs):
    with pytest.raises(ConfigError, match=r"env\.kwargs\.nois"):
        make_env("quantum:bell", EnvOptions(1, 0, kwargs=kwargs))
