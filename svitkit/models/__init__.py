"""Spiking Vision Transformers: the families, their prune plans, and the checkpoints that hold them."""
