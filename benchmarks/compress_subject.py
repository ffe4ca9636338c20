"""What every method of compression is given: one trained network, its data, and the constraint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.compress_methods import Task
from svitkit.accuracy import accuracy
from svitkit.compress.evaluate import limited
from svitkit.data.dataset import Dataset, Split
from svitkit.data.load import load_data
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.resolve import resolve_model
from svitkit.models.spec import match_dataset
from svitkit.presets import PRESETS, data_of


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is the same for every method.

    Attributes:
        network: its name.
        checkpoint: the network.
        data: all of its data.
        accuracy: of the network on the test split, in percent.
        max_drop, min_saving: the constraints.
        limit: validation images of the search; None for all.
        epochs: of fine-tuning.
        rounds: how often every image is timed.
        work: folder for what methods share.
    """

    network: str
    checkpoint: Checkpoint
    data: Dataset
    accuracy: float
    max_drop: float
    min_saving: float
    limit: int | None
    epochs: int
    rounds: int
    work: Path

    def task(self, work: Path) -> Task:
        """Returns what a method is asked for; of the test split it sees one image, to tell its shape."""
        validation = limited(self.data, self.limit).validation
        test = Split(x=self.data.test.x[:1], y=self.data.test.y[:1])
        return Task(
            checkpoint=self.checkpoint,
            data=replace(self.data, validation=validation, test=test),
            max_drop=self.max_drop,
            min_saving=self.min_saving,
            work=work,
        )

    def test_accuracy(self, checkpoint: Checkpoint) -> float:
        """Measures a network on the test split."""
        return accuracy(checkpoint.model, self.data, "test", timesteps=checkpoint.spec.timesteps)


def prepare(
    network: str,
    data: str | None,
    *,
    max_drop: float,
    min_saving: float,
    limit: int | None,
    epochs: int,
    rounds: int,
    work: Path,
) -> Bench:
    """Loads a network and its data, and measures its accuracy.

    Args:
        network: a name of the zoo or a checkpoint directory.
        data: as ``--data`` of svitkit takes them; None for those that the network's recipe is made for.
        max_drop: points of validation accuracy that may be lost.
        min_saving: fraction of the parameter bytes to save at least.
        limit: validation images of the search; None for all.
        epochs: of fine-tuning.
        rounds: how often every image is timed.
        work: folder for what methods share.

    Raises:
        ConfigError: the network or the data cannot be loaded, or do not fit each other.
    """
    checkpoint = resolve_model(network)
    made_for = checkpoint.spec.provenance.get("architecture")
    wanted = data_of(made_for, data) if made_for in PRESETS else data or "digits"
    dataset = match_dataset(load_data(wanted, timesteps=checkpoint.spec.timesteps), checkpoint.spec)
    return Bench(
        network=Path(network).name,
        checkpoint=checkpoint,
        data=dataset,
        accuracy=accuracy(checkpoint.model, dataset, "test", timesteps=checkpoint.spec.timesteps),
        max_drop=max_drop,
        min_saving=min_saving,
        limit=limit,
        epochs=epochs,
        rounds=rounds,
        work=work,
    )
