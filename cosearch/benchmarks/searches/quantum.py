"""Agents that build quantum circuits, beside random circuits and breadth-first search: success rate, gates, simulator calls.

``python -m cosearch.benchmarks.searches.quantum`` searches and trains an agent on each game with PPO and with A2C, from several
seeds, lets each build circuits, sampled and greedy, and writes ``quantum.json`` beside this file and the table of
``docs/evidence/quantum.md``. Resumable; runs that are finished are read. A simulator call is one gate applied to one circuit: an
environment step. Random circuits draw gates uniformly until the target is reached or 20 gates are laid, as the task has it.
Breadth-first search grows all circuits gate by gate and keeps one for each state (a global phase aside), without noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program
from cosearch.benchmarks.runs import open_or_create
from cosearch.cli.progress import TerminalProgress
from cosearch.config.env import EnvConfig
from cosearch.pipeline.run import TRAINING, work_on
from cosearch.pipeline.session import open_session
from cosearch.planning.plan import Plan, make_plan
from cosearch.planning.task import resolve_task
from cosearch.record.json_record import from_json, to_json
from cosearch.rl.env_families.quantum import ENOUGH, MOST_GATES, QUBITS, gates_of
from cosearch.rl.policy import act, policy_of
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.training.algorithms import as_policy
from cosearch.training.threads import set_threads

OUT, PAGE = Path(__file__).with_suffix(".json"), DOCS / "evidence" / "quantum.md"
EPISODES, RANDOM_EPISODES, SIDE_BY_SIDE = 1024, 65_536, 64
ALGORITHMS = {"ppo": (), "a2c": ("rl.algorithm=a2c",)}
BUDGET = ("budget.search_steps=32768", "budget.retrain_steps=65536", "objective.latency_ratio=2")
FILE = "circuits.json"  # of a run: what its agent builds


@dataclass(frozen=True)
class Built:
    """Circuits that one rule built.

    Attributes:
        episodes: how many.
        success: share that reached the target within 20 gates, 0..1.
        gates: mean gates of those that did; None where none did.
        shortest: gates of the shortest of them.
        calls: simulator calls, the gates of all circuits together.
    """

    episodes: int
    success: float
    gates: float | None
    shortest: int | None
    calls: int

    @property
    def calls_per_success(self) -> float | None:
        """Mean simulator calls until a circuit reaches the target, circuits built one after the other."""
        return self.calls / (self.success * self.episodes) if self.success else None


def built(lengths: np.ndarray, reached: np.ndarray) -> Built:
    """Figures of circuits.

    Args:
        lengths: ``[episodes]``, gates of each.
        reached: ``[episodes]``, bool, whether it reached the target.
    """
    good, calls = lengths[reached], int(lengths.sum())
    if not len(good):
        return Built(len(lengths), 0.0, None, None, calls)
    return Built(len(lengths), float(reached.mean()), float(good.mean()), int(good.min()), calls)


def play(config: EnvConfig, forward: Forward | None, episodes: int, seed: int, *, greedy: bool = False) -> Built:
    """Let an agent build circuits, or draw gates uniformly.

    Args:
        config: the task.
        forward: of the agent; None: random gates.
        episodes: at least this many.
        seed: of the actions.
        greedy: take the most likely gate instead of sampling.
    """
    env, generator = make_task(config, SIDE_BY_SIDE, 0), torch.Generator().manual_seed(seed)
    quota = -(-episodes // SIDE_BY_SIDE)
    lengths: list[list[int]] = [[] for _ in range(SIDE_BY_SIDE)]
    reached: list[list[bool]] = [[] for _ in range(SIDE_BY_SIDE)]
    frames, steps, policy = env.observe(), np.zeros(SIDE_BY_SIDE, np.int64), policy_of(env)
    while min(map(len, lengths)) < quota:
        if forward is None:
            actions = torch.randint(env.num_actions, (SIDE_BY_SIDE,), generator=generator).numpy()
        else:
            actions = act(forward, frames, policy, generator, greedy=greedy)
        env.send(actions)
        step = env.receive()
        frames, steps = step.frames, steps + 1
        for i in np.flatnonzero(step.terminated | step.truncated):
            if len(lengths[i]) < quota:
                lengths[i].append(int(steps[i]))
                reached[i].append(bool(step.terminated[i]))
            steps[i] = 0
    env.close()
    return built(np.concatenate(lengths), np.concatenate(reached))


def breadth_first(game: str) -> tuple[tuple[str, ...], int]:
    """The shortest circuit of a game without noise.

    Args:
        game: a key of ``QUBITS``.

    Returns:
        The names of its gates, and how many simulator calls it took to find it.
    """
    names, unitaries, _ = gates_of(QUBITS[game])
    start = np.eye(len(unitaries[0]), dtype=np.complex128)[0]
    layer: list[tuple[np.ndarray, tuple[str, ...]]] = [(start, ())]
    seen, calls = {_key(start)}, 0
    for _ in range(MOST_GATES):
        following: list[tuple[np.ndarray, tuple[str, ...]]] = []
        for state, path in layer:
            for name, unitary in zip(names, unitaries):
                calls += 1
                reached = unitary @ state
                if abs(reached[0] + reached[-1]) ** 2 / 2 > ENOUGH:
                    return (*path, name), calls
                if _key(reached) not in seen:
                    seen.add(_key(reached))
                    following.append((reached, (*path, name)))
        layer = following
    raise AssertionError(f"no circuit of {game} within {MOST_GATES} gates")


def _key(state: np.ndarray) -> bytes:
    """The same for states that differ in a global phase alone."""
    first = state[np.argmax(np.abs(state) > 1e-9)]
    return (np.round(state * (abs(first) / first), 6) + 0.0).tobytes()


@dataclass(frozen=True)
class AgentRow:
    """What the agent of one run builds.

    Attributes:
        choices: of its architecture, by name.
        latency_s: predicted on the run's device, seconds.
        env_steps: of search and retraining together, the simulator calls of its learning.
        sampled, greedy: its circuits.
    """

    choices: tuple[str, ...]
    latency_s: float
    env_steps: int
    sampled: Built
    greedy: Built


def _plan(game: str, algorithm: str, seed: int, words: list[str]) -> Plan:
    said = [f"env.name=quantum:{game}", f"seed={seed}", *ALGORITHMS[algorithm], *words]
    return make_plan(resolve_task(overrides=said))


def run_one(game: str, algorithm: str, seed: int, runs: Path, words: list[str]) -> AgentRow:
    """Search and retrain an agent, or go on with it, or read what it built.

    Args:
        game: a key of ``QUBITS``.
        algorithm: a key of :data:`ALGORITHMS`.
        seed: of the run.
        runs: folder of the run folders.
        words: further KEY=VALUE words.

    Raises:
        RunFolderError: the folder holds a run of other words.
    """
    folder = runs / f"quantum-{game}-{algorithm}-s{seed}"
    plan = _plan(game, algorithm, seed, words)
    run = open_or_create(folder, plan)
    if not (folder / FILE).is_file():
        set_threads(plan.config.threads)
        with run.lock():
            session = open_session(run, plan, TerminalProgress(True))
            work_on(session, TRAINING)
            outputs = session.checkpoints.current.outputs
            assert outputs.search is not None and outputs.retrain is not None  # both stages are done
            architecture = plan.space.architecture(outputs.search.choices)
            network = derive(architecture, torch.Generator().manual_seed(0))
            network.load_state_dict(outputs.retrain.weights)
            forward, drawn = as_policy(network.float().eval(), plan.config), Streams(plan.config.seed).derive("eval")
            budget = plan.config.budget
            row = AgentRow(
                choices=tuple(architecture.choice_names),
                latency_s=plan.hardware.predict(architecture.ops()).latency_s,
                env_steps=budget.search_steps + budget.retrain_steps,
                sampled=play(plan.config.env, forward, EPISODES, drawn),
                greedy=play(plan.config.env, forward, SIDE_BY_SIDE, drawn, greedy=True),
            )
            run.write_json(FILE, asdict(row))
    return from_json(AgentRow, run.read_json(FILE), folder / FILE)


@dataclass(frozen=True)
class GameResult:
    """One game.

    Attributes:
        agents: for each algorithm one row a seed.
        random: circuits of uniform gates.
        shortest: gates of the shortest circuit, by breadth-first search.
        shortest_calls: simulator calls of breadth-first search until it found that.
    """

    agents: Mapping[str, tuple[AgentRow, ...]]
    random: Built
    shortest: tuple[str, ...]
    shortest_calls: int


@dataclass(frozen=True)
class QuantumResult:
    """All games.

    Attributes:
        games: by name.
        seeds: of the runs.
        words: KEY=VALUE words of every run.
    """

    games: Mapping[str, GameResult]
    seeds: tuple[int, ...]
    words: tuple[str, ...]


def _over_seeds(values: list[float], form: str) -> str:
    """The mean, and the value of each seed where they differ: shares of so few seeds have no interval worth its name."""
    mean = format(float(np.mean(values)), form)
    each = [format(value, form) for value in values]
    return mean if len(set(each)) == 1 else f"{mean} ({', '.join(each)})"


def markdown(result: QuantumResult) -> str:
    """The tables of the documentation."""
    lines = [
        "| game | circuits by | success, of 20 gates at most | gates, mean | shortest | simulator calls to learn or search |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for game, found in result.games.items():
        for algorithm, rows in found.agents.items():
            for name, each in (("sampled", [row.sampled for row in rows]), ("greedy", [row.greedy for row in rows])):
                gates = [one.gates for one in each if one.gates is not None]
                lengths = [one.shortest for one in each if one.shortest is not None]
                lines.append(
                    f"| {game} | {algorithm}, {name}, {len(rows)} seeds | {_over_seeds([one.success for one in each], '.1%')} "
                    f"| {_over_seeds(gates, '.2f') if gates else 'none'} | {min(lengths, default='none')} "
                    f"| {rows[0].env_steps:,} |"
                )
        random, calls = found.random, found.random.calls_per_success
        gates_text = "none" if random.gates is None else f"{random.gates:.2f}"
        calls_text = "never" if calls is None else f"{calls:,.0f} a success"
        lines.append(f"| {game} | uniform gates | {random.success:.1%} | {gates_text} | {random.shortest} | {calls_text} |")
        lines.append(
            f"| {game} | breadth-first search | 100.0% | {len(found.shortest)} | {len(found.shortest)}: "
            f"{' '.join(found.shortest)} | {found.shortest_calls:,} |"
        )
    return "\n".join(lines)


def main(
    games: Annotated[str, typer.Option(help="Games, by commas.")] = "bell,ghz-3",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    out: Annotated[Path, typer.Option(help="The result; the page of the documentation is written with the default.")] = OUT,
    extra: Annotated[list[str] | None, typer.Argument(help="Further KEY=VALUE words of every run.")] = None,
) -> None:
    """Run, build, compare, print, save."""
    words, found = [*BUDGET, *(extra or [])], {}
    for game in games.split(","):
        agents = {
            algorithm: tuple(run_one(game, algorithm, seed, runs, words) for seed in range(seeds)) for algorithm in ALGORITHMS
        }
        circuit, calls = breadth_first(game)
        random = play(EnvConfig(name=f"quantum:{game}"), None, RANDOM_EPISODES, 0)
        found[game] = GameResult(agents, random, circuit, calls)
    result = QuantumResult(found, tuple(range(seeds)), tuple(words))
    typer.echo(markdown(result))
    keep(to_json(result), out, PAGE, "quantum", markdown(result))


if __name__ == "__main__":
    program(main)
