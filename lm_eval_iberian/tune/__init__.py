"""The search for the best recipe, by Optuna."""
