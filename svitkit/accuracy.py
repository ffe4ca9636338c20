"""Top-1 accuracy of a network in torch."""

from __future__ import annotations

import torch
from torch import nn

from svitkit.data.dataset import Dataset, batches
from svitkit.errors import ConfigError
from svitkit.models.run import forward_logits


def accuracy(
    model: nn.Module,
    dataset: Dataset,
    split: str,
    *,
    timesteps: int,
    limit: int | None = None,
    batch_size: int = 128,
) -> float:
    """Measures top-1 accuracy in evaluation mode.

    Args:
        model: the network.
        dataset: the data, normalized as the network wants (``match_dataset``).
        split: ``train``, ``validation`` or ``test``.
        timesteps: T.
        limit: at most that many samples, spread over the split.
        batch_size: samples per forward pass.

    Returns:
        Percent, 0..100.

    Raises:
        ConfigError: the split is empty.
    """
    device = device_of(model)
    training = model.training
    model.eval()
    right = seen = 0
    with torch.no_grad():
        for x, y in batches(dataset, split, batch_size=batch_size, timesteps=timesteps, limit=limit):
            right += int((forward_logits(model, x.to(device)).argmax(1).cpu() == y).sum())
            seen += len(y)
    model.train(training)
    if not seen:
        raise ConfigError(f"data '{dataset.name}' has no sample in its split '{split}'.")
    return 100.0 * right / seen


def device_of(model: nn.Module) -> torch.device:
    """Returns where a network's first parameter lies; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
