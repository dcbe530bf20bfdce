"""Whole studies: models × phases × strategies × seeds as a graph of commands that a workflow engine runs."""

from __future__ import annotations

from goniometer.studies.workflow.description import Study, packaged_studies, read_study
from goniometer.studies.workflow.engine import run_study
from goniometer.studies.workflow.graph import Graph, Task, study_graph

__all__ = ["Graph", "Study", "Task", "packaged_studies", "read_study", "run_study", "study_graph"]
