"""Counting right answers until the count is complete or the wanted accuracy is out of reach.

With N images, n of them looked at, c of those right, a candidate's accuracy is at most (c + N - n) / N: below the floor
that is certain. Long before, it can be known for practical purposes. Images come in random order, and a candidate
mostly errs where the whole network errs; let d be the difference per image, candidate minus whole network, each 0 or 1.
Over the n images d has mean m and variance s^2; the N - n others are drawn without replacement from the same N, so the
standard error of m as an estimate for all N is

    se = sqrt(s^2 / n * (N - n) / (N - 1))

and the candidate's accuracy over all N is practically at most whole + m + 6 se, at least ``GATE_IMAGES`` being looked
at. If errors were normal, a candidate that deserves the full count would be turned away once in 10^9 times; where s is
estimated too small, because none of the few images that speak for the candidate were seen, the n images would have had
to be the worst of all. A difference of plus and minus one image is added to s^2, so that it is never 0.
"""

from __future__ import annotations

import math

import torch

from svitkit.compress.journal import Stopped

SIGMAS = 6.0
GATE_IMAGES = 64


class Tally:
    """One candidate's right answers so far."""

    def __init__(self, total: int, floor: float | None, whole: torch.Tensor | None) -> None:
        """Begins to count.

        Args:
            total: N, how many images there are, in random order.
            floor: the accuracy below which no more is wanted, in percent; None to count to the end.
            whole: (N,) bool, which images the whole network gets right; None to stop on certainty alone.
        """
        self.total, self.floor = total, floor
        self.seen = self.right = 0
        self._whole = whole
        self._share = 0.0 if whole is None else float(whole.double().mean())
        self._gains = self._losses = 0

    def add(self, right: torch.Tensor) -> bool:
        """Counts a batch.

        Args:
            right: (B,) bool, which of the next images are classified correctly.

        Returns:
            Whether to go on: images are left, and the floor is not known to be missed.
        """
        if self._whole is not None:
            before = self._whole[self.seen : self.seen + len(right)]
            self._gains += int((right & ~before).sum())
            self._losses += int((~right & before).sum())
        self.seen += len(right)
        self.right += int(right.sum())
        return self.seen < self.total and not self._misses(self.accuracy())

    @property
    def complete(self) -> bool:
        """Whether every image was looked at."""
        return self.seen == self.total

    def accuracy(self) -> float:
        """Returns the percentage that is right; while images are left, the most that it can be."""
        certain, likely = self._certain_bound(), self._likely_bound()
        return certain if self._misses(certain) else min(certain, likely)

    def stopped(self) -> Stopped | None:
        """Returns how far it came, if images are left."""
        if self.complete:
            return None
        estimate = 100.0 * self.right / self.seen if self._whole is None else 100.0 * (self._share + self._mean())
        certain = self._misses(self._certain_bound())
        return Stopped(images=self.seen, accuracy=min(estimate, self.accuracy()), certain=certain)

    def _misses(self, most: float) -> bool:
        return self.floor is not None and most < self.floor

    def _certain_bound(self) -> float:
        return 100.0 * (self.right + self.total - self.seen) / self.total

    def _likely_bound(self) -> float:
        """Returns 100 (whole + m + 6 se)."""
        if self._whole is None or not GATE_IMAGES <= self.seen < self.total:
            return 100.0
        mean = self._mean()
        variance = (self._gains + self._losses + 2) / self.seen - mean**2
        error = math.sqrt(variance / self.seen * (self.total - self.seen) / (self.total - 1))
        return 100.0 * (self._share + mean + SIGMAS * error)

    def _mean(self) -> float:
        return (self._gains - self._losses) / self.seen
