"""Services that the recipes use: checkpoints, EMA, evaluation. None of them knows a recipe."""
