"""The same workload in other hands: a single-file PPO and stable-baselines3, for the comparisons of speed and of curves."""
