"""Trajectories: segments in H5MD, and readers for the files of other programs."""
