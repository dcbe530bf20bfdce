"""Molecular dynamics: runs that are described, checked while they run, and go on to the last bit after any kill."""
