"""Ensembles: independent starting configurations, and other ensembles by reweighting."""
