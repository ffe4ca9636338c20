"""How much of the allowed loss of accuracy a search may spend on the images that it sees."""

from __future__ import annotations

from math import sqrt


def accuracy_floor(before: float, max_drop: float, *, margin: float, images: int) -> float:
    """Returns the accuracy that a candidate must have on the validation images.

    Of many candidates a search takes one that was lucky on these images. The standard error of a difference of two
    accuracies is at most that of two networks that err on different images; where it leaves nothing of ``max_drop``, no
    loss is allowed.

    Args:
        before: accuracy of the network before, in percent.
        max_drop: points that may be lost.
        margin: standard errors by which a candidate must stay within.
        images: how many there are.

    Returns:
        Percent.
    """
    wrong = (2 * (100 - before) + max_drop) / 100
    error = 100 * sqrt(min(wrong, 1.0) / images)
    return before - max(0.0, max_drop - margin * error)
