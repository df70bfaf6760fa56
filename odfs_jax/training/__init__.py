"""State, step, loop, checkpoint and preview of a training run."""
