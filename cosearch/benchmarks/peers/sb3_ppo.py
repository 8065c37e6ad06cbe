"""The PPO of stable-baselines3 on the benchmark's workloads, used as its documentation says: its own environments and wrappers.

Its value loss has no factor 1/2, so its weight is half of the workload's; its clipped value loss takes the held value alone,
where the field's other implementations take the larger of two errors. Everything else is the same.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from torch import Tensor

from cosearch.benchmarks.peers.plain_ppo import body
from cosearch.benchmarks.peers.workloads import Workload
from latency_tables.errors import MissingExtraError

NEVER = 10**9  # updates between two of its logs

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
except ImportError as error:
    raise MissingExtraError(f"the benchmark's peer cannot be imported ({error}): pip install 'cosearch[bench]'") from error


class Features(BaseFeaturesExtractor):
    """The benchmark's network body in stable-baselines3's place for it.

    Args:
        observation_space: of one environment.
        network: name of the body.
        width: numbers that it returns.
        last: whether the channels come last.
    """

    def __init__(self, observation_space: gymnasium.Space, network: str, width: int, last: bool) -> None:
        super().__init__(observation_space, width)
        self.last = last
        shape = observation_space.shape or ()
        self.body = body(network, shape[2 if last else 0])

    def forward(self, frames: Tensor) -> Tensor:
        """Frames in 0..1 -> ``[batch, width]``."""
        return self.body(frames.permute(0, 3, 1, 2) if self.last else frames)


class VecProcgen(VecEnv):
    """Procgen's engine as stable-baselines3's vector environment.

    Args:
        game, num_envs, seed, threads: of the engine.
    """

    def __init__(self, game: str, num_envs: int, seed: int, threads: int) -> None:
        from cosearch.rl.env_families.procgen import ProcgenEnv
        from cosearch.rl.envs import EnvOptions

        self._engine = ProcgenEnv(game, EnvOptions(num_envs, seed, threads))
        super().__init__(
            num_envs,
            gymnasium.spaces.Box(0, 255, self._engine.frame_shape, np.uint8),
            gymnasium.spaces.Discrete(self._engine.num_actions),
        )

    def reset(self) -> np.ndarray:
        """The current frames: the engine resets itself."""
        return self._engine.observe()

    def step_async(self, actions: np.ndarray) -> None:
        """Start a step."""
        self._engine.send(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, object]]]:
        """The step's result."""
        step = self._engine.receive()
        return step.frames, step.reward, step.terminated, [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()

    def get_attr(self, attr_name: str, indices: object = None) -> list[object]:
        """An attribute, as often as there are environments."""
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: object, indices: object = None) -> None:
        """The engine has none to set."""
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: object, indices: object = None, **kwargs: object) -> list[object]:
        """The engine has no methods of single environments."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: type, indices: object = None) -> list[bool]:
        """Never."""
        return [False] * self.num_envs


def sb3_env(workload: Workload, seed: int, threads: int) -> VecEnv:
    """The workload's environments with stable-baselines3's monitor and reward normalisation."""
    family, game = workload.env.split(":")
    if family == "procgen":
        envs: VecEnv = VecMonitor(VecProcgen(game, workload.num_envs, seed, threads))
    else:
        import minatar.gym

        name = f"MinAtar/{game.title().replace('_', '')}-v1"
        if name not in gymnasium.registry:
            minatar.gym.register_envs()
        envs = DummyVecEnv([lambda: Monitor(gymnasium.make(name))] * workload.num_envs)
    return VecNormalize(envs, norm_obs=False, norm_reward=True, gamma=workload.gamma)


class Sb3Ppo:
    """One ``learn`` of stable-baselines3 for each update.

    Args:
        workload: what to train.
        seed: of everything.
        threads: of the engine that steps the games.
    """

    def __init__(self, workload: Workload, seed: int, threads: int) -> None:
        w = self.workload = workload
        width = {"impala": 256, "nature": 512, "small": 128}[w.network]
        policy = {
            "features_extractor_class": Features,
            "features_extractor_kwargs": {"network": w.network, "width": width, "last": not w.env.startswith("procgen")},
            "net_arch": [],
            "optimizer_kwargs": {"eps": 1e-5},
        }
        self.model = PPO(
            "CnnPolicy" if w.env.startswith("procgen") else "MlpPolicy",
            sb3_env(w, seed, threads),
            w.lr,
            w.rollout_steps,
            w.minibatch,
            w.epochs,
            w.gamma,
            w.lam,
            w.clip,
            w.clip,
            ent_coef=w.entropy_weight,
            vf_coef=w.value_weight / 2,
            max_grad_norm=w.max_grad_norm,
            policy_kwargs=policy,
            seed=seed,
            device=torch.device("cpu"),
        )

    def advance(self) -> None:
        """One rollout and its update."""
        self.model.learn(self.workload.steps_per_update, reset_num_timesteps=False, log_interval=NEVER)

    def score(self) -> float | None:
        """See ``Contestant``."""
        found = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        return float(np.mean(found)) if found else None

    def shares(self) -> None:
        """See ``Contestant``: not known."""
        return

    def parameters(self) -> int:
        """See ``Contestant``."""
        return sum(p.numel() for p in self.model.policy.parameters())

    def close(self) -> None:
        """See ``Contestant``."""
        env = self.model.get_env()
        if env is not None:
            env.close()
