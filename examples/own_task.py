"""A task of your own: register a Gymnasium environment, search an agent for it and a device, play what was found.

python examples/own_task.py --steps 65536
"""

import argparse

import gymnasium
import numpy as np

import cosearch


class Corridor(gymnasium.Env):
    """Walk left or right along a line of 11 places; the goal is at a random end, and a lamp says at which.

    Observation: place and lamp, both -1..1. Reward: 1 for the goal, -0.01 a step. An optimal agent scores 0.96.
    """

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        """Begin in the middle."""
        super().reset(seed=seed)
        self.place, self.goal, self.steps = 0, int(self.np_random.choice([-5, 5])), 0
        return self.observation(), {}

    def step(self, action):
        """Action 0 goes left, 1 goes right."""
        self.place, self.steps = self.place + (1 if action else -1), self.steps + 1
        found, lost = self.place == self.goal, self.place == -self.goal
        return self.observation(), float(found) - 0.01, found or lost, self.steps >= 50, {}

    def observation(self):
        """Place and lamp."""
        return np.array([self.place / 5, np.sign(self.goal)], np.float32)


gymnasium.register("Corridor-v0", entry_point=Corridor)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=65_536, help="environment steps of search, and as many of retraining")
    parser.add_argument("--device", default="raspberry-pi-4")
    parser.add_argument("--runs", default="runs")
    asked = parser.parse_args()

    run = cosearch.search(
        "gym:Corridor-v0",
        asked.device,
        runs=asked.runs,
        budget={"search_steps": asked.steps, "retrain_steps": asked.steps, "eval_episodes": 64, "measure_s": 1.0},
        distill={"teacher": "none"},
        threads=1,
    )
    summary = run.summary
    print(f"{run.folder}: score {summary.score_mean:.2f} over {summary.episodes} episodes")
    print(f"{summary.latency_predicted_s * 1e6:.0f} us on {asked.device}, {summary.table_provenance}")

    agent, env = cosearch.load_agent(run), gymnasium.make("Corridor-v0")
    observation, _ = env.reset(seed=0)
    places, over = [], False
    while not over:
        observation, _, terminated, truncated, _ = env.step(agent(observation))
        over = terminated or truncated
        places.append(env.unwrapped.place)
    print(f"goal at {env.unwrapped.goal}, the agent went {places}")
