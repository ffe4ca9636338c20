"""Labelled images and event recordings."""

from svitkit.data.dataset import Dataset, Split, batches
from svitkit.data.load import load_data

__all__ = ["Dataset", "Split", "batches", "load_data"]
