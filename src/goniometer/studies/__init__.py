"""The study of arXiv 2406.17747: experiments, numbers, figures, report and workflow. A client of the other packages."""
