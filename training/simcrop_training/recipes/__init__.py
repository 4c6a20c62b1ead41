"""Recipes: functions that return a complete configuration of a run."""
