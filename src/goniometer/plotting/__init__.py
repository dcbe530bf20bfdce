"""Figures with matplotlib, one function for each kind of plot. Nothing is computed here."""
