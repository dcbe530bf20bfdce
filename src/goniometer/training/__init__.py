"""Training over metatrain: recipes, labelled data and their checks, the loop, evaluation, model cards."""
