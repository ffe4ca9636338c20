"""Candidates that are measured without a network, for tests of executors; loaded in every worker, so it is light."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from svitkit.compress.executor import Wanted
from svitkit.compress.journal import Measurement
from svitkit.errors import UnsupportedError
from svitkit.models.plan import PrunedGroup, PruneGroup, PrunePlan

DEADLY, DEADLY_TWICE, WRONG, ENDLESS = 1, 2, 8, 9


def plan(kept: int) -> PrunePlan:
    return PrunePlan(
        groups=(PrunedGroup(group=PruneGroup(name="g", channels=99, members=()), kept=tuple(range(kept))),)
    )


class Imaginary:
    """Accuracy is ten times the channels kept; some candidates end badly."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def prepare(self) -> None:
        (self.notes / "prepared").touch()

    def measure(self, plan: PrunePlan, *, floor: float | None) -> Measurement:
        kept = len(plan.groups[0].kept)
        with (self.notes / f"began {kept}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if kept == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if kept == DEADLY_TWICE and len((self.notes / f"began {kept}").read_text().splitlines()) < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if kept == ENDLESS:
            threading.Event().wait()
        if kept == WRONG:
            raise UnsupportedError("eight is too many")
        return Measurement(key=Wanted(plan=plan, floor=floor).key, accuracy=10.0 * kept, parameter_bytes=kept)
