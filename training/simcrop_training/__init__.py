"""Recipes and entry points of training. This version has none yet."""
