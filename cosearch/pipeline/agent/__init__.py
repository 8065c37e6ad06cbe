"""From the architecture to the agent: retraining, alone or as a bracket, then export, evaluation and measurement."""
