"""The study of arXiv 2406.17747: experiments, figures, report and workflow. Nothing imports it."""
