"""Services that recipes use: gradient steps, evaluation, restoration, the run. None of them knows a recipe."""
