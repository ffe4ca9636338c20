"""What ``program.txt`` says of a network beyond its plan: what a program needs that has no manifest to read."""

from __future__ import annotations

import string
from collections.abc import Iterable

import numpy as np

from svitkit.manifest import ModelMetadata

_PLAIN = frozenset(string.printable) - frozenset(string.whitespace) - {"%"}


def fact_lines(
    model: ModelMetadata, *, features: Iterable[str], golden_count: int, golden_tolerance: float
) -> tuple[str, ...]:
    """Returns lines of ``program.txt`` for :func:`svitkit.runtime.program.to_text`.

    Args:
        model: what the network is.
        features: CPU features that the machine code may use, by their names in /proc/cpuinfo.
        golden_count: inputs of the golden check.
        golden_tolerance: largest difference of logits that it accepts.
    """
    steps = model.timesteps if model.mode == "step" else 1
    wanted = " ".join(features)
    return (
        f"steps {steps}",
        *([f"features {wanted}"] if wanted else []),
        *_frame_line(model),
        *(f"class {_quoted(name)}".rstrip() for name in model.class_names),
        f"golden {golden_count} {golden_tolerance!r}",
    )


def _frame_line(model: ModelMetadata) -> list[str]:
    """How bytes become the input, as ``svitkit.data.dataset.normalize`` computes it; nothing where it is no image."""
    if len(model.input.shape) < 4:
        return []
    channels, height, width = model.input.shape[-3:]
    frames = model.input.elements // (channels * height * width)
    divisor = 255 if model.static_input else 1
    normalization = model.normalization
    numbers = [repr(float(np.float32(value))) for value in (*normalization.mean, *normalization.std)]
    return [f"frame {frames} {channels} {height} {width} {divisor} {' '.join(numbers)}"]


def _quoted(name: str) -> str:
    """Writes a name as one word: every byte of its UTF-8 that is no plain character as %XX."""
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in name.encode())
