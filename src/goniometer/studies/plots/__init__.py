"""Figures of the study of arXiv 2406.17747 and its supplement."""
