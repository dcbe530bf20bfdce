"""The report of the study, compared with the numbers of arXiv 2406.17747."""
