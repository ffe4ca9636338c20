"""Measures bundles on boards: what is asked, what the board says, what it means, and whether to believe it."""
