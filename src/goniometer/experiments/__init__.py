"""Experiments of the study: runs, what they say, and the figure of it, resumable as a whole."""
