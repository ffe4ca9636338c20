"""Trainings of one network with different weights left out, each kept on disk until the search is over.

Every training has a folder: ``training.pt`` while it runs, from which a stopped one goes on; then the weights after its
last epoch, ``settled.safetensors``, and those of its best epoch, ``best.safetensors``, which say that it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from svitkit.compress.zeros import held_at_zero, set_to_zero
from svitkit.data.dataset import Dataset
from svitkit.files import write_bytes
from svitkit.fitting import TrainingProgress, fit
from svitkit.models.checkpoint import build_model
from svitkit.models.spec import ModelSpec
from svitkit.models.weights import dump_weights, load_strictly, read_safetensors
from svitkit.presets import FitOptions

ROUNDS_NAME = "rounds"
STATE_NAME = "training.pt"
SETTLED_NAME = "settled.safetensors"
BEST_NAME = "best.safetensors"
REWIND_NAME = "rewind.safetensors"


class Rounds:
    """Trains a network again and again.

    Attributes:
        options: the training.
        rewind_epoch: epochs after which the whole network's weights are kept, for later trainings to start from.
    """

    def __init__(
        self,
        spec: ModelSpec,
        data: Dataset,
        folder: Path,
        *,
        options: FitOptions,
        rewind_epoch: int,
        progress: Callable[[str, int, int], None],
    ) -> None:
        """Keeps what all trainings share.

        Args:
            spec: builds the network with fresh weights.
            data: trained on its training split; its validation split chooses the best epoch.
            folder: where trainings are kept.
            options: the training.
            rewind_epoch: 0 to one less than the epochs.
            progress: told the stage, how much of it is done, and how much there is.
        """
        self._spec, self._data, self._folder, self._progress = spec, data, folder, progress
        self.options, self.rewind_epoch = options, rewind_epoch

    def train_whole(self, label: str) -> nn.Module:
        """Trains the network whole from its fresh weights, as round 0, and returns it."""
        model = self._fresh(self.options.seed)
        if self.rewind_epoch == 0:
            self._keep(model, self._folder / REWIND_NAME)
        return self._fit(model, 0, label, first_epoch=0)

    def train(
        self, name: int | str, zeros: Mapping[str, torch.Tensor], label: str, *, seed: int | None = None
    ) -> nn.Module:
        """Trains what is left, and returns it.

        Args:
            name: number of the round, or a name.
            zeros: where weights are 0 and stay so, by name.
            label: for the progress.
            seed: of fresh weights to start from; None for those of round 0 after ``rewind_epoch`` epochs.
        """
        model = self._fresh(self.options.seed if seed is None else seed)
        if seed is None:
            self._restore(model, self._folder / REWIND_NAME)
        set_to_zero(model, zeros)
        with held_at_zero((model.get_parameter(name), where) for name, where in zeros.items()):
            return self._fit(model, name, label, first_epoch=self.rewind_epoch if seed is None else 0)

    def trained(self, name: int | str) -> nn.Module:
        """Returns a network as it was after its best epoch."""
        return self._restored(self._place(name) / BEST_NAME)

    def settled(self, name: int | str) -> nn.Module:
        """Returns a network as it was after its last epoch."""
        return self._restored(self._place(name) / SETTLED_NAME)

    def _place(self, name: int | str) -> Path:
        return self._folder / (f"{name:02d}" if isinstance(name, int) else name)

    def _fresh(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(self._spec)

    def _fit(self, model: nn.Module, name: int | str, label: str, *, first_epoch: int) -> nn.Module:
        place = self._place(name)
        if (place / BEST_NAME).exists():
            return self.trained(name)
        place.mkdir(parents=True, exist_ok=True)

        def at_end_of(epoch: int) -> None:
            if name == 0 and epoch + 1 == self.rewind_epoch:
                self._keep(model, self._folder / REWIND_NAME)
            if epoch + 1 == self.options.epochs:
                self._keep(model, place / SETTLED_NAME)

        def report(now: TrainingProgress) -> None:
            self._progress(label, round(now.share * now.steps), now.steps)

        state = place / STATE_NAME
        fit(
            model,
            self._data,
            self.options,
            first_epoch=first_epoch,
            on_epoch=at_end_of,
            report=report,
            state=state,
        )
        self._keep(model, place / BEST_NAME)
        state.unlink()
        return model

    def _keep(self, model: nn.Module, path: Path) -> None:
        write_bytes(path, dump_weights(model, "float32"))

    def _restored(self, path: Path) -> nn.Module:
        model = self._fresh(self.options.seed)
        self._restore(model, path)
        return model

    def _restore(self, model: nn.Module, path: Path) -> None:
        load_strictly(model, read_safetensors(path), str(path))
