"""Puts a trained checkpoint into the zoo: weights as float16, accuracies measured again on exactly those.

python scripts/pack_zoo.py CHECKPOINT KIND:PATH [ZOO]

CHECKPOINT is what ``svitkit train NAME --data KIND:PATH -o CHECKPOINT`` wrote; a training with other options than the
preset NAME is refused, because the command in the zoo would not make it again.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from svitkit.accuracy import accuracy
from svitkit.data.dataset import Dataset
from svitkit.data.load import load_data
from svitkit.errors import ConfigError, SvitError
from svitkit.models.checkpoint import WEIGHTS_NAME, Checkpoint, load_checkpoint, save_checkpoint
from svitkit.models.spec import match_dataset
from svitkit.presets import FitOptions, find_preset

README = """# {name}

A {family} (T={timesteps}, {arguments}, input {shape}, {parameters} parameters) trained on {data}.

    {command}

Accuracy of these weights, which are stored as float16: {test:.2f} % on the {test_count} test images, on which nothing
was decided; {validation:.2f} % on the {validation_count} validation images, on which the epoch was chosen. Seed,
options, splits and versions are in `svit.json` under `provenance`. With another number of threads or another processor
sums round differently, and the weights come out slightly different.
"""


def pack(source: Path, data: str, zoo: Path) -> Path:
    """Writes a checkpoint into the zoo.

    Args:
        source: the trained checkpoint.
        data: what it was trained on, as ``--data`` takes it.
        zoo: the folder of all networks.

    Returns:
        The new checkpoint directory; its provenance has ``command``, ``stored_as`` and the accuracies of the stored
        weights in place of those of the float32 weights.

    Raises:
        ConfigError: the checkpoint was trained in another way than its preset says.
    """
    checkpoint = load_checkpoint(source)
    told = checkpoint.spec.provenance
    name = str(told["architecture"])
    if FitOptions(**told["options"]) != find_preset(name).fit:
        raise ConfigError(f"'{source}' was trained with other options than '{name}' has. Train it again without any.")
    with tempfile.TemporaryDirectory() as work:
        save_checkpoint(Path(work) / name, checkpoint.model, checkpoint.spec, dtype="float16")
        stored = load_checkpoint(Path(work) / name)
    dataset = match_dataset(load_data(data, timesteps=stored.spec.timesteps), stored.spec)
    if dataset.name != told["data"]:
        raise ConfigError(f"'{source}' was trained on '{told['data']}', got '{dataset.name}'.")
    provenance = {**told, **_measured(stored, dataset), "command": _command(name, data), "stored_as": "float16"}
    spec = replace(stored.spec, provenance=provenance)
    out = zoo / name
    save_checkpoint(out, stored.model, spec, dtype="float16")
    (out / "README.md").write_text(_readme(name, replace(stored, spec=spec)), encoding="utf-8")
    return out


def _command(name: str, data: str) -> str:
    kind, _, path = data.partition(":")
    return f"svitkit train {name} --data {f'{kind}:{Path(path).name}' if path else kind} -o {name}"


def _measured(checkpoint: Checkpoint, dataset: Dataset) -> dict[str, float]:
    timesteps = checkpoint.spec.timesteps
    return {
        f"{split}_accuracy_percent": round(accuracy(checkpoint.model, dataset, split, timesteps=timesteps), 4)
        for split in ("validation", "test")
    }


def _readme(name: str, checkpoint: Checkpoint) -> str:
    spec, told = checkpoint.spec, checkpoint.spec.provenance
    own: dict[str, Any] = find_preset(name).arguments
    return README.format(
        name=name,
        family=spec.family,
        timesteps=spec.timesteps,
        arguments=", ".join(f"{key} {value}" for key, value in own.items()),
        shape="x".join(map(str, spec.input_shape)),
        parameters=f"{checkpoint.parameter_count():,}",
        data=told["data"],
        command=told["command"],
        test=told["test_accuracy_percent"],
        test_count=f"{told['samples']['test']:,}",
        validation=told["validation_accuracy_percent"],
        validation_count=f"{told['samples']['validation']:,}",
    )


def main(arguments: list[str]) -> None:
    """Packs one checkpoint and says what came of it."""
    if len(arguments) not in (2, 3):
        sys.exit(__doc__)
    source, data = Path(arguments[0]), arguments[1]
    zoo = Path(arguments[2]) if len(arguments) == 3 else Path(__file__).resolve().parents[1] / "svitkit" / "zoo"
    try:
        before = load_checkpoint(source).spec.provenance
        out = pack(source, data, zoo)
    except SvitError as error:
        sys.exit(f"error: {error}")
    after, size = load_checkpoint(out).spec.provenance, (out / WEIGHTS_NAME).stat().st_size
    print(f"{out}: {size:,} bytes of weights")
    for split in ("validation", "test"):
        key = f"{split}_accuracy_percent"
        print(f"accuracy on {split}: {before[key]:.2f} % with float32, {after[key]:.2f} % as stored")


if __name__ == "__main__":
    main(sys.argv[1:])
