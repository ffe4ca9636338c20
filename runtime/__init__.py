"""Compilation of an exported network for a board, and what runs and measures it there."""
