"""Molecular dynamics: run descriptions, runs that resume after any kill, relaxation."""
