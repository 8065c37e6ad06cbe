"""Play the exported agent of a run with numpy and onnxruntime alone; the task needs Gymnasium, torch is not imported.

python examples/play_agent.py runs/NAME --env CartPole-v1 --episodes 10
"""

import argparse
import sys
import time

import gymnasium
import numpy as np

import cosearch

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder, or a folder with agent.onnx and agent.json copied from one")
    parser.add_argument("--env", default="CartPole-v1", help="a Gymnasium id with the observations that the agent was trained on")
    parser.add_argument("--episodes", type=int, default=10)
    asked = parser.parse_args()

    agent, env = cosearch.load_agent(asked.run, seed=0), gymnasium.make(asked.env)
    scores, decisions_s = [], []
    for episode in range(asked.episodes):
        observation, _ = env.reset(seed=episode)
        score, over = 0.0, False
        while not over:
            began = time.perf_counter()
            action = agent(observation)
            decisions_s.append(time.perf_counter() - began)
            observation, reward, terminated, truncated, _ = env.step(action)
            score, over = score + float(reward), terminated or truncated
        scores.append(score)
    print(
        f"score {np.mean(scores):.1f} over {asked.episodes} episodes; a decision takes {np.median(decisions_s) * 1e6:.0f} us here"
    )
    print(f"torch imported: {'torch' in sys.modules}")
