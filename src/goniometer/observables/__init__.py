"""Observables: trajectories in, values with errors, units and the time in which they forget out."""
