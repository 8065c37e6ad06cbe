"""Off-policy learning: quantile DQN with prioritised replay."""
