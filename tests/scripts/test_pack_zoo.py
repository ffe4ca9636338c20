"""Trained networks on their way into the zoo."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from svitkit.accuracy import accuracy
from svitkit.data import load_data
from svitkit.errors import ConfigError
from svitkit.models.checkpoint import WEIGHTS_NAME, load_checkpoint
from svitkit.models.weights import read_safetensors
from svitkit.presets import PRESETS, FitOptions, Preset, fit_options
from svitkit.training import train

SCRIPT = Path(__file__).parents[2] / "scripts" / "pack_zoo.py"
NAME = "tiny-spikformer"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the source tree")


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pack_zoo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny network after one epoch on digits."""
    arguments = {"patch_size": 4, "embed_dims": 16, "num_heads": 2, "depths": 1}
    recipe = FitOptions(epochs=1, timesteps=1, lr=5e-3)
    monkeypatch.setitem(PRESETS, NAME, Preset(family="spikformer", arguments=arguments, fit=recipe))
    train(NAME, load_data("digits"), tmp_path / "trained")
    return tmp_path / "trained"


def test_matrices_are_stored_as_float16_and_the_accuracies_are_those_of_the_stored_weights(
    script: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([str(trained), "digits", str(tmp_path / "zoo")])
    out = tmp_path / "zoo" / NAME
    tensors = read_safetensors(out / WEIGHTS_NAME)
    assert {value.dtype for value in tensors.values() if value.ndim >= 2} == {torch.float16}
    packed, told = load_checkpoint(out), load_checkpoint(out).spec.provenance
    assert packed.model.state_dict()["head.weight"].dtype == torch.float32
    for split in ("validation", "test"):
        measured = accuracy(packed.model, load_data("digits"), split, timesteps=1)
        assert told[f"{split}_accuracy_percent"] == pytest.approx(measured, abs=1e-4)
    assert told["command"] == f"svitkit train {NAME} --data digits -o {NAME}"
    assert told["stored_as"] == "float16"
    assert told["options"]["seed"] == 0
    readme = (out / "README.md").read_text()
    assert f"    {told['command']}\n" in readme
    assert f"{told['test_accuracy_percent']:.2f} % on the 360 test images" in readme
    assert "as stored" in capsys.readouterr().out


def test_the_command_names_a_file_of_data_without_its_folder(script: ModuleType) -> None:
    assert script._command("a", "fashion-mnist:/somewhere/f.npz") == "svitkit train a --data fashion-mnist:f.npz -o a"


def test_a_training_that_the_command_would_not_make_again_is_refused(
    script: ModuleType, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = PRESETS[NAME].fit
    monkeypatch.setitem(
        PRESETS, NAME, Preset(family="spikformer", arguments=PRESETS[NAME].arguments, fit=fit_options(NAME, lr=0.1))
    )
    assert PRESETS[NAME].fit != other
    with pytest.raises(ConfigError, match="other options than 'tiny-spikformer'"):
        script.pack(trained, "digits", tmp_path / "zoo")
    with pytest.raises(SystemExit, match=r"error: .*other options"):
        script.main([str(trained), "digits", str(tmp_path / "zoo")])
    assert not (tmp_path / "zoo").exists()
