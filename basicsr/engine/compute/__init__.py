"""How networks compute and are trained: one gradient step, the balance of losses, precision."""
