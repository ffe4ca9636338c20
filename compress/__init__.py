"""Compression of a trained network: find what can be removed, decide how much, remove it for good."""
