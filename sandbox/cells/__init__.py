"""Cells: what is put into one, how it runs and is watched, and what is taken out of it."""
