"""Heads, one task or part each."""
