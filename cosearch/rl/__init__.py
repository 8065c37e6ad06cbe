"""Reinforcement learning: environments, acting, losses and updates (PPO, A2C, DQN, SAC), distillation, evaluation.

Knows nothing of costs and of strategies: what is trained is a ``Subject``. The order of random draws is part of a seed's result.
"""
