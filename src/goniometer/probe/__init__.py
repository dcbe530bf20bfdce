"""Symmetry errors, spectra, noise floors and the plan; called, it is :func:`goniometer.probe.measure.probe`."""

from goniometer._callable import answer_with

answer_with(__name__, "goniometer.probe.measure")
