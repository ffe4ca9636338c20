"""Rewrites of an exported graph, one file each; :mod:`svitkit.export.pipeline` lists them in order."""
