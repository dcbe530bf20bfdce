"""Two ensembles in, one answer out: they differ, they are equivalent within δ, or nobody can tell yet."""

from goniometer.comparison.curves import Comparison, Verdict, compare_curves, decide

__all__ = ["Comparison", "Verdict", "compare_curves", "decide"]
