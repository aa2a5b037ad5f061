"""How a network is computed and one gradient step is taken."""
