"""Recipes, one paper each."""
