"""svitkit: compress a Spiking Vision Transformer, compile it for a small board, and measure it there."""

__version__ = "0.1.0"
