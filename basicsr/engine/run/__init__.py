"""A training run: iterations, resuming, checkpoints to keep, signals, lost ranks."""
