"""Learning from a rollout: losses, minibatches and threads, the optimiser, a teacher's labels, and the network that learns."""
