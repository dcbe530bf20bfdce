"""Training with metatrain: recipes, checkpoints, evaluation, model cards."""
