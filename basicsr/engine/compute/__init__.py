"""One training step: precision, gradients, averages, timing."""
