"""Runs the agent of this folder with numpy and onnxruntime alone: no torch, Python 3.6 or newer.

    python3 run_agent.py                # what the agent takes and gives
    python3 run_agent.py --self-test    # the stored observations; exit code 0, or 1 and one line that says why
    python3 run_agent.py --time 5       # how long a decision takes: 5 seconds back to back, 5 once a period

In a program of your own (actions are sampled where the agent was trained so; ``greedy=True`` takes the best one):

    agent = Agent("agent")
    for late_s in every(agent.period_s, agent.warm_up):  # wakes early, warms the caches, waits for the exact moment
        act(agent(observe()))

An agent with a memory carries it from call to call: ``agent.reset()`` where an episode begins.
"""

import argparse
import json
import os
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of numpy would take the cores of the control loop
try:
    import numpy as np
    import onnxruntime
except ImportError as error:
    sys.exit(f"error: a package is missing ({error}); python3 -m pip install numpy onnxruntime")

HERE = os.path.dirname(os.path.abspath(__file__))
NEEDED = ["input_dtype", "input_name", "input_shape", "noise_input", "noise_size", "period_s", "policy", "rule", "tolerance"]
NEEDED += ["action_high", "action_low", "action_output", "action_scale", "action_shift", "first_action", "stored_outputs"]
FORBIDDEN = -5e7  # the logit of an action that a mask forbids is below it


class AgentError(Exception):
    """One line that says what is wrong with this folder or this machine."""

    def __init__(self, message: str) -> None:  # names from files must not steer the terminal
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in message)[:1000])


class Agent:
    """Observations in, actions out; ``seed``: of sampled actions; ``threads``: None for as many as were predicted for."""

    def __init__(self, folder: str = HERE, seed: int = 0, threads: Optional[int] = None) -> None:
        self.folder, self.random = folder, np.random.RandomState(seed)
        try:
            with open(os.path.join(folder, "contract.json"), encoding="utf-8") as file:
                self.contract: Dict[str, Any] = json.load(file)
            model, opset = os.path.join(folder, self.contract["model"]), int(self.contract["opset"])
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or self.contract["threads"]
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise AgentError(f"contract.json cannot be read: {type(error).__name__}: {str(error)[:300]}") from error
        options.inter_op_num_threads, options.log_severity_level = 1, 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a dozen classes of its own without a common root
            version, reason = onnxruntime.__version__, " ".join(str(error).split())
            if len(reason) > 300:  # it begins with the kind of the error and ends with the reason; between are signatures
                reason = f"{reason[:75]} ... {reason[-225:]}"
            raise AgentError(f"onnxruntime {version} cannot load {model} (opset {opset}): {reason}") from error
        inside = self.session.get_modelmeta().custom_metadata_map  # each value as JSON
        differ = [name for name in sorted({*self.contract, *NEEDED}) if inside.get(name) != json.dumps(self.contract.get(name))]
        if differ:
            name, names = os.path.basename(model), ", ".join(differ)[:300]
            raise AgentError(f"contract.json differs from the contract inside {name}: {names}")
        self.shape, self.dtype = tuple(self.contract["input_shape"][1:]), np.dtype(self.contract["input_dtype"])
        self.inputs: List[Dict[str, Any]] = self.contract.get("inputs", [])  # of an observation of several parts
        self.period_s, self._names = float(self.contract["period_s"]), [entry.name for entry in self.session.get_outputs()]
        self.reset()
        self._last = self._feed(self.blank(), True)

    def reset(self) -> None:
        """Begin an episode: what the agent remembers of the one before is cleared; one without a memory has nothing to clear."""
        self.memory: Optional[np.ndarray] = None

    def blank(self) -> Any:
        """A batch of one observation of zeros; a mask allows all."""
        if not self.inputs:
            return np.zeros((1, *self.shape), self.dtype)
        return {e["name"]: np.full((1, *e["shape"]), int(e["kind"] == "mask"), e["dtype"]) for e in self.inputs}

    def _feed(self, observations: Any, greedy: bool) -> Dict[str, np.ndarray]:
        feed = {}
        if len(self.inputs) == 1 and not isinstance(observations, dict):
            observations = {self.inputs[0]["name"]: observations}
        for entry in self.inputs or [{"name": self.contract["input_name"], "shape": self.shape, "dtype": self.dtype, "kind": ""}]:
            try:
                values = np.asarray(observations[entry["name"]] if self.inputs else observations)
            except (KeyError, IndexError, TypeError):
                names = ", ".join(each["name"] for each in self.inputs)
                raise AgentError(f"the agent takes a dictionary of {names}, {entry['name']} is missing") from None
            dtype = np.dtype(entry["dtype"])
            values = (values.reshape(len(values), -1) > 0).astype(dtype) if entry["kind"] == "mask" else values
            values = values[..., None] if (values.ndim, tuple(entry["shape"])[2:]) == (3, (1,)) else values  # grey images
            other = values.dtype != dtype if dtype == np.uint8 else values.dtype.kind not in "bfiu"
            if other or values.shape[1:] != tuple(entry["shape"]):
                taken = f"{entry['name'] + ' ' if self.inputs else ''}[batch, {', '.join(map(str, entry['shape']))}]"
                raise AgentError(f"the agent takes {taken} in {dtype}, got {list(values.shape)} in {values.dtype}")
            feed[entry["name"]] = np.ascontiguousarray(values, dtype)
        count = len(next(iter(feed.values())))
        if self.contract["noise_input"]:
            size, gaussian = (count, self.contract["noise_size"]), self.contract["policy"] == "gaussian"
            draw = np.zeros if greedy else self.random.standard_normal if gaussian else self.random.random_sample
            most = np.inf if gaussian else 1 - 2.0**-24  # the next below 1 in float32, which would round larger ones to 1
            feed[self.contract["noise_input"]] = np.minimum(draw(size), most).astype(np.float32)
        if self.contract.get("memory_input"):
            initial = np.array(self.contract["memory_initial"], np.float32)
            memory = np.tile(initial, (count, 1)) if self.memory is None else self.memory
            if memory.shape != (count, len(initial)):
                raise AgentError(f"the agent remembers {len(memory)} episodes, got {count} observations: reset it")
            feed[self.contract["memory_input"]] = memory
        return feed

    def outputs(self, observations: Any, greedy: bool = False) -> Dict[str, np.ndarray]:
        """All outputs of the network for observations ``[batch, ...]``; greedy: with zeros as noise, where it takes noise."""
        feed = self._feed(observations, greedy)
        found = dict(zip(self._names, self.session.run(None, feed)))
        for name, values in found.items():
            if not np.isfinite(values).all():  # neither the memory nor the observation is kept
                raise AgentError(f"the agent's {name} is NaN or infinite; an observation with NaN in it does that")
        self._last = feed
        if self.contract.get("memory_input"):
            self.memory = found[self.contract["memory_output"]]
        return found

    def act(self, observations: Any, greedy: bool = False) -> np.ndarray:
        """Actions for observations ``[batch, ...]`` (of several parts a dictionary of such): ``[batch]``, or ``[batch, size]``.

        Discrete ones are whole numbers, as the environment numbers them, others float32, clipped.
        """
        contract, found, greedy = self.contract, self.outputs(observations, greedy), greedy or self.contract["rule"] == "argmax"
        if contract["noise_input"] and not greedy:
            return found[contract["action_output"]]
        if contract["policy"] == "gaussian":
            mean = found["mean"].astype(np.float64)
            noise = 0.0 if greedy else np.exp(found["log_std"]) * self.random.standard_normal(mean.shape)
            low, high = (np.array(contract[name], np.float64) for name in ("action_low", "action_high"))  # null is NaN: no bound
            action = np.array(contract["action_scale"]) * (mean + noise) + np.array(contract["action_shift"])
            return np.fmin(np.fmax(action, low), high).astype(np.float32)
        logits, sizes = found["logits"].astype(np.float64), contract.get("action_sizes", [])
        if sizes:
            factors = np.split(logits, np.cumsum(sizes)[:-1], axis=1)
            return np.stack([self._chosen(factor, greedy) for factor in factors], axis=1)
        return self._chosen(logits, greedy) + contract["first_action"]

    def _chosen(self, logits: np.ndarray, greedy: bool) -> np.ndarray:
        if greedy:
            return logits.argmax(axis=1)
        reached = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
        drawn = self.random.random_sample((len(logits), 1)) * reached[:, -1:]
        return (reached <= drawn).sum(axis=1)

    def __call__(self, observation: Any, greedy: bool = False) -> np.ndarray:
        """The action for one observation; of several parts a dictionary of them by name."""
        if self.inputs and isinstance(observation, dict):
            return self.act({name: np.asarray(value)[None] for name, value in observation.items()}, greedy)[0]
        return self.act(np.asarray(observation)[None], greedy)[0]

    def warm_up(self) -> None:
        """Act on the last observation, without a draw, so that the next call finds weights and code in the caches."""
        last, memory = self._last, self.memory
        self.act(last if self.inputs else last[self.contract["input_name"]], greedy=True)
        self._last, self.memory = last, memory  # what came of it is not remembered


def every(period_s: float, warm_up: Optional[Callable[[], object]] = None, lead_s: float = 0.001) -> Iterator[float]:
    """Yields once a period how many seconds late it is; with ``warm_up`` it wakes ``lead_s`` early, calls it, and spins."""
    due = time.perf_counter() + period_s
    while True:
        missed = time.perf_counter() >= due  # then the next moment is counted from when it was called
        time.sleep(max(0.0, due - time.perf_counter() - (lead_s if warm_up else 0.0)))
        if warm_up:
            warm_up()
            while time.perf_counter() < due:
                pass
        now = time.perf_counter()
        yield now - due
        due = (now if missed else due) + period_s


def self_test(agent: Agent) -> str:
    """Plays the stored observations, one at a time, and compares outputs and greedy actions; one line that says how well."""
    (taken, stored), tolerance, worst, allowed = stored_values(agent), agent.contract["tolerance"], 0.0, {}
    for name, values in stored.items():  # logits of actions that a mask forbids do not count
        counted = np.where((name == "logits") & (values <= FORBIDDEN), 0.0, values)
        allowed[name] = tolerance * max(1.0, float(np.abs(counted).max())) if values.dtype.kind == "f" else 0.5
    logits = np.sort(stored.get("logits", [[-np.inf, 0.0]]))  # where the two best are closer than is allowed, either is right
    tied, count = np.ptp(logits[:, -2:], axis=1) <= 2 * allowed.get("logits", 0.0), len(stored["actions"])
    begins = stored.pop("begins", np.ones(count))
    if agent.contract.get("action_sizes"):  # the outputs say all
        stored.pop("actions")
    for i in range(count):
        observation = {name: values[i : i + 1] for name, values in taken.items()} if agent.inputs else taken[i : i + 1]
        agent.memory = memory = None if i == 0 or begins[i] else agent.memory
        found = agent.outputs(observation, greedy=True)
        agent.memory = memory
        found["actions"] = agent.act(observation, greedy=True)
        for name in sorted(set(stored) - {"actions" if tied[i % len(tied)] else ""}):
            expected, got = stored[name][i], found[name].reshape(stored[name][i].shape)
            forbidden = (name == "logits") & (expected <= FORBIDDEN) & (got <= FORBIDDEN)
            difference = float(np.abs(np.where(forbidden, 0.0, got - expected)).max())
            worst = max(worst, difference / allowed[name])
            if not difference <= allowed[name]:  # also true for NaN
                raise AgentError(f"observation {i}: {name} differs by {difference:.3g}, at most {allowed[name]:.3g} is allowed")
    return f"ok: {count} observations, largest difference {worst:.2g} of what is allowed"


def stored_values(agent: Agent) -> Tuple[Any, Dict[str, np.ndarray]]:
    """The stored observations as the agent takes them; and the outputs and actions: numbers, equally many of each."""
    folder = os.path.join(agent.folder, "self_test")
    parts = {"input_" + entry["name"]: entry["name"] for entry in agent.inputs} or {"observations": ""}
    names = [*parts, "actions", *agent.contract["stored_outputs"]]
    names += ["begins"] if agent.contract.get("memory_input") else []  # which are the first of an episode
    try:
        stored = {name: np.load(os.path.join(folder, name + ".npy"), allow_pickle=False) for name in names}
        fit = len({len(values) for values in stored.values()}) == 1 and all(v.dtype.kind in "fiu" for v in stored.values())
    except Exception as error:  # a damaged header raises a dozen classes
        raise AgentError(f"the stored observations cannot be read: {' '.join(str(error).split())[:300]}") from error
    agent.reset()
    seen = {parts[name]: stored.pop(name) for name in parts}
    taken = seen if agent.inputs else seen[""]
    first = {name: values[:1] for name, values in seen.items()} if agent.inputs else taken[:1]
    found = agent.outputs(first, greedy=True) if fit and len(stored["actions"]) else {}
    if not all(name in found and found[name].size == stored[name][0].size for name in agent.contract["stored_outputs"]):
        raise AgentError("the stored observations and outputs do not fit each other or the agent")
    return taken, stored


def timed(agent: Agent, seconds: float, moments: Iterator[float]) -> str:
    """Median and 99th percentile of the decisions made at some moments, and how many took longer than a period."""
    took_s: List[float] = []
    blank, end = agent.blank(), time.perf_counter() + seconds
    observation = {name: values[0] for name, values in blank.items()} if agent.inputs else blank[0]
    while not took_s or time.perf_counter() < end:
        next(moments)
        before = time.perf_counter()
        agent(observation)
        took_s.append(time.perf_counter() - before)
    p50, p99 = np.percentile(took_s, (50, 99)) * 1e3
    return f"median {p50:.3f} ms, p99 {p99:.3f} ms, {sum(s > agent.period_s for s in took_s)} of {len(took_s)} over the period"


def main() -> int:
    """The command line; 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", action="store_true", help="play the stored observations")
    parser.add_argument("--time", type=float, metavar="SECONDS", help="time decisions")
    parser.add_argument("--cpu", type=int, help="run on this processor only")
    given = parser.parse_args()
    try:
        if given.time is not None and not 0 < given.time < float("inf"):
            raise AgentError(f"--time needs seconds above 0, got {given.time:g}")
        if given.cpu is not None:
            try:
                os.sched_setaffinity(0, {given.cpu})
            except (OSError, ValueError, OverflowError) as error:
                raise AgentError(f"--cpu needs the number of a processor that is there, got {given.cpu}: {error}") from error
        agent = Agent()
        if given.self_test:
            print(self_test(agent))
        if given.time:
            moments = iter(float, 1.0), every(agent.period_s), every(agent.period_s, agent.warm_up)
            for name, own in zip(("back to back", "once a period, after a sleep", "once a period, warmed up"), moments):
                print(f"{name}: {timed(agent, given.time, own)}")
        if not given.self_test and not given.time:
            print(json.dumps(agent.contract, indent=1))
    except (AgentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
