"""Figures with matplotlib, one function for each kind of plot: results in, figures out. Nothing is computed here."""
