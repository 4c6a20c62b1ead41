"""Recipes and entry points of training."""
