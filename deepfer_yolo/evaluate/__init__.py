"""Metrics, their uncertainty, gates and the record of runs."""
