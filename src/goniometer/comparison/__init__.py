"""Comparison of two ensembles: they differ, are equivalent within δ, or the runs do not decide."""

from goniometer.comparison.curves import Comparison, Verdict, compare_curves, decide

__all__ = ["Comparison", "Verdict", "compare_curves", "decide"]
