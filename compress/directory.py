"""The directory that a compression run writes: what may lie in it, and what must not be lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from svitkit.compress.journal import JOURNAL_NAME
from svitkit.compress.plot import PLOT_NAME
from svitkit.compress.report import REPORT_NAME
from svitkit.compress.rounds import ROUNDS_NAME
from svitkit.errors import ConfigError
from svitkit.models.checkpoint import SPEC_NAME, WEIGHTS_NAME

TRAINING_NAME = "finetune.training.pt"
OWN_FILES = {JOURNAL_NAME, PLOT_NAME, REPORT_NAME, SPEC_NAME, WEIGHTS_NAME, TRAINING_NAME, ROUNDS_NAME}


def prepare_directory(out: Path, *, resume: bool) -> None:
    """Refuses a directory that holds anything else; clears the way where a finished search is repeated.

    Args:
        out: the directory; it need not exist.
        resume: keep what a killed search left.

    Raises:
        ConfigError: ``out`` is a file, or a directory with files that no compression wrote.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"'{out}' is a file, but compression writes a directory. Choose another name.")
    foreign = sorted(path.name for path in out.iterdir() if path.name not in OWN_FILES) if out.exists() else []
    if foreign:
        raise ConfigError(f"'{out}' holds other files ({', '.join(foreign[:3])}). Choose an empty or new directory.")
    report, journal = out / REPORT_NAME, out / JOURNAL_NAME
    if not resume and (report.exists() or not journal.exists()):
        for path in (report, journal, out / PLOT_NAME, out / TRAINING_NAME):
            path.unlink(missing_ok=True)
        shutil.rmtree(out / ROUNDS_NAME, ignore_errors=True)
