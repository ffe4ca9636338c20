"""Checkpoint directories and every way to name a network."""

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from svitkit.data.dataset import Dataset, Split
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.manifest import Normalization
from svitkit.models.checkpoint import (
    SPEC_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    checkpoint_sha256,
    load_checkpoint,
    save_checkpoint,
)
from svitkit.models.families import build_family
from svitkit.models.plan import Member, PrunedGroup, PruneGroup, PrunePlan, apply_plan
from svitkit.models.resolve import resolve_model
from svitkit.models.run import example_input, forward_logits
from svitkit.models.spec import ModelSpec, match_dataset

CLASS_NAMES = ("a", "b", "c")
ARGUMENTS: dict[str, Any] = {
    "spikformer": {"num_heads": 4},
    "spike-driven-transformer": {"num_heads": 4},
    "qkformer": {"num_heads": (1, 2, 4), "depths": (1, 1, 1)},
}
USER_CODE = """
from spikingjelly.activation_based import layer, neuron
from torch import nn

class Net(nn.Module):
    def __init__(self, width=6, node=neuron.LIFNode):
        super().__init__()
        self.body = nn.Sequential(layer.Conv2d(1, width, 3, step_mode="m"), node(step_mode="m"))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.body(x).flatten(3).mean(-1))

def parametric():
    return Net(node=neuron.ParametricLIFNode)

def broken():
    raise RuntimeError("out of luck")

def not_a_network():
    return 42

def flat():
    return nn.Sequential(nn.Flatten(0))

NUMBER = 3
"""


class Attack:
    """Pickles as a call that writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "ran")


def make_spec(family: str = "spikformer") -> ModelSpec:
    told = {"T": 2, "in_channels": 1, "img_size_h": 16, "img_size_w": 16, "num_classes": 3, "embed_dims": 32}
    return ModelSpec(
        family=family,
        arguments={**told, **ARGUMENTS[family]},
        timesteps=2,
        input_shape=(1, 16, 16),
        static_input=True,
        normalization=Normalization(mean=(0.5,), std=(0.25,)),
        class_names=CLASS_NAMES,
        original_parameter_bytes=123,
        provenance={"seed": 1},
    )


def make_checkpoint(family: str = "spikformer") -> Checkpoint:
    spec = make_spec(family)
    torch.manual_seed(0)
    return Checkpoint(model=build_family(family, spec.arguments).eval(), spec=spec)


def make_dataset(side: int = 8) -> Dataset:
    part = Split(x=np.zeros((3, 1, side, side), np.uint8), y=np.arange(3))
    return Dataset(
        name="tiny",
        train=part,
        validation=part,
        test=part,
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=CLASS_NAMES,
        shape=(1, side, side),
        static=True,
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoint = make_checkpoint()
    save_checkpoint(tmp_path / "ckpt", checkpoint.model, checkpoint.spec)
    return tmp_path / "ckpt"


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"usernet_{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(USER_CODE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("family", ARGUMENTS)
def test_a_network_comes_back_as_it_was_saved(tmp_path: Path, family: str) -> None:
    checkpoint = make_checkpoint(family)
    save_checkpoint(tmp_path / "ckpt", checkpoint.model, checkpoint.spec)
    loaded = load_checkpoint(tmp_path / "ckpt")
    assert not loaded.model.training
    assert checkpoint_sha256(loaded) == checkpoint_sha256(checkpoint) == checkpoint_sha256(tmp_path / "ckpt")
    x = torch.rand(2, 3, 1, 16, 16) * 4
    with torch.no_grad():
        assert torch.equal(forward_logits(loaded.model, x), forward_logits(checkpoint.model, x))


def test_a_pruned_network_comes_back_pruned(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    names = ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    members = [Member(tensor=f"blocks.1.mlp.fc1.{name}", dim=0) for name in names]
    group = PruneGroup(name="g", channels=128, members=(*members, Member(tensor="blocks.1.mlp.fc2.0.weight", dim=1)))
    plan = PrunePlan(groups=(PrunedGroup(group=group, kept=tuple(range(0, 128, 2))),))
    size = checkpoint.parameter_bytes()
    apply_plan(checkpoint.model, plan)
    save_checkpoint(tmp_path / "ckpt", checkpoint.model, replace(checkpoint.spec, plan=plan))
    loaded = load_checkpoint(tmp_path / "ckpt")
    assert loaded.spec.plan == plan
    assert loaded.model.blocks[1].mlp.fc1[0].out_channels == 64
    assert size - loaded.parameter_bytes() == 4 * 64 * (32 + 1 + 32)


def test_half_precision_storage_halves_matrices_and_comes_back_as_float32(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    save_checkpoint(tmp_path / "half", checkpoint.model, checkpoint.spec, dtype="float16")
    stored = safetensors.torch.load_file(tmp_path / "half" / WEIGHTS_NAME)
    assert stored["head.weight"].dtype == torch.float16
    assert stored["head.bias"].dtype == torch.float32
    weight = load_checkpoint(tmp_path / "half").model.head.weight
    assert torch.equal(weight, checkpoint.model.head.weight.half().float())


def test_loading_does_not_touch_the_random_state(saved: Path) -> None:
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    load_checkpoint(saved)
    assert torch.equal(torch.rand(1), first)


def test_the_hash_changes_with_one_weight_and_with_the_description() -> None:
    checkpoint = make_checkpoint()
    before = checkpoint_sha256(checkpoint)
    assert checkpoint_sha256(replace(checkpoint, spec=replace(checkpoint.spec, timesteps=3))) != before
    with torch.no_grad():
        checkpoint.model.head.bias[0] += 1e-6
    assert checkpoint_sha256(checkpoint) != before


def test_nothing_is_written_where_a_weight_is_not_finite(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    with torch.no_grad():
        checkpoint.model.head.bias[0] = torch.nan
    with pytest.raises(ConfigError, match=r"head\.bias"):
        save_checkpoint(tmp_path / "ckpt", checkpoint.model, checkpoint.spec)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_no_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    checkpoint = make_checkpoint()
    with pytest.raises(ConfigError, match="is no checkpoint"):
        save_checkpoint(tmp_path, checkpoint.model, checkpoint.spec)
    assert (tmp_path / "thesis.txt").read_text() == "dear"


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights_are_refused(saved: Path, keep: int) -> None:
    content = (saved / WEIGHTS_NAME).read_bytes()
    (saved / WEIGHTS_NAME).write_bytes(content[:keep])
    with pytest.raises(ConfigError, match="no whole safetensors"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("head.bias"), "1 missing .*head.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 unknown .*extra"),
        (lambda t: t.update({"head.bias": torch.zeros(4)}), r"'head.bias' has shape \(4,\)"),
        (lambda t: t.update({"head.bias": torch.zeros(3, dtype=torch.int32)}), "'head.bias' has type torch.int32"),
        (
            lambda t: t.update({"head.bias": torch.full((3,), torch.inf)}),
            "'head.bias' holds values that are not finite",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(saved: Path, change: Any, says: str) -> None:
    tensors = safetensors.torch.load_file(saved / WEIGHTS_NAME)
    change(tensors)
    safetensors.torch.save_file(tensors, saved / WEIGHTS_NAME)
    with pytest.raises(ConfigError, match=says):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda spec: spec.pop("timesteps"), "timesteps"),
        (lambda spec: spec.update(colour="red"), "colour"),
        (lambda spec: spec.update(format_version=2), "format_version"),
        (lambda spec: spec.update(family="spikfomer"), "Did you mean 'spikformer'"),
        (lambda spec: spec["arguments"].update(embed_dims=64), "shape"),
    ],
)
def test_a_description_that_is_wrong_is_refused(saved: Path, change: Any, says: str) -> None:
    spec = json.loads((saved / SPEC_NAME).read_text())
    change(spec)
    (saved / SPEC_NAME).write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match=says):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", [SPEC_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ConfigError, match=f"has no {name}"):
        load_checkpoint(saved)


@pytest.mark.parametrize("family", ["os:system", "pathlib:Path", "usernet:Net"])
def test_a_checkpoint_cannot_make_code_run_that_the_user_did_not_name(saved: Path, family: str) -> None:
    spec = json.loads((saved / SPEC_NAME).read_text())
    spec.update(family=family, arguments={"command": f"touch {saved}/ran"})
    (saved / SPEC_NAME).write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match=f"SVITKIT_TRUSTED_CLASSES={family}"):
        load_checkpoint(saved)
    assert not (saved / "ran").exists()


def test_a_user_class_takes_its_description_from_the_data(user_module: str) -> None:
    checkpoint = resolve_model(f"{user_module}:Net", dataset=make_dataset(), timesteps=3, arguments={"width": 5})
    assert checkpoint.spec.input_shape == (1, 8, 8)
    assert checkpoint.spec.timesteps == 3
    assert checkpoint.spec.class_names == CLASS_NAMES
    assert checkpoint.spec.original_parameter_bytes == 4 * (5 * 9 + 5 + 15 + 3)
    assert forward_logits(checkpoint.model, example_input(checkpoint.spec, 2)).shape == (2, 3)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_weights_of_a_user_class_are_loaded(user_module: str, tmp_path: Path, ending: str, wrapper: str | None) -> None:
    dataset = make_dataset()
    state = {
        k: torch.rand_like(v)
        for k, v in resolve_model(f"{user_module}:Net", dataset=dataset).model.state_dict().items()
    }
    path = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        content = {f"module.{name}": value for name, value in state.items()}
        torch.save({wrapper: content, "epoch": 3} if wrapper else content, path)
    loaded = resolve_model(f"{user_module}:Net", weights=path, dataset=dataset)
    assert torch.equal(loaded.model.head.weight, state["head.weight"])


def test_a_user_class_survives_saving_and_loading(user_module: str, tmp_path: Path) -> None:
    checkpoint = resolve_model(f"{user_module}:Net", dataset=make_dataset(), arguments={"width": 4})
    save_checkpoint(tmp_path / "ckpt", checkpoint.model, checkpoint.spec)
    assert checkpoint_sha256(resolve_model(str(tmp_path / "ckpt"))) == checkpoint_sha256(checkpoint)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(user_module: str, tmp_path: Path, zipped: bool) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights.pth"
    if zipped:
        torch.save({"head.weight": Attack(marker)}, path)
    else:
        path.write_bytes(pickle.dumps({"head.weight": Attack(marker)}, protocol=2))
    with pytest.raises(ConfigError, match=r"could run code|no whole PyTorch file"):
        resolve_model(f"{user_module}:Net", weights=path, dataset=make_dataset())
    assert not marker.exists()


def test_the_hostile_pickle_of_these_tests_does_work(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Attack(tmp_path / "ran")))
    assert (tmp_path / "ran").read_text() == "ran"


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (None, "weights.pth", "No such file"),
        (None, "weights.safetensors", "No such file"),
        (b"PK\x03\x04 cut off", "weights.pth", "no whole PyTorch file"),
        (b"", "weights.pth", "no whole PyTorch file"),
        (b"{}", "weights.json", "ending '.json'"),
    ],
)
def test_weight_files_that_cannot_be_read_are_explained(
    user_module: str, tmp_path: Path, content: bytes | None, name: str, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        resolve_model(f"{user_module}:Net", weights=tmp_path / name, dataset=make_dataset())


def test_a_tensor_alone_is_no_state_dict(user_module: str, tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="no state dict"):
        resolve_model(f"{user_module}:Net", weights=tmp_path / "weights.pth", dataset=make_dataset())


@pytest.mark.parametrize(
    ("attribute", "arguments", "says"),
    [
        ("Nett", None, "Did you mean 'Net'"),
        ("NUMBER", None, "is a int"),
        ("broken", None, "RuntimeError: out of luck"),
        ("not_a_network", None, "returned a int"),
        ("flat", None, "wanted logits of shape"),
        ("Net", {"height": 3}, "height"),
        ("Net", {"width": 0}, "cannot run|failed"),
    ],
)
def test_user_classes_that_cannot_be_used_are_explained(
    user_module: str, attribute: str, arguments: dict[str, Any] | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve_model(f"{user_module}:{attribute}", dataset=make_dataset(), arguments=arguments)


def test_neurons_of_a_user_class_that_cannot_be_expressed_are_named(user_module: str) -> None:
    with pytest.raises(UnsupportedError, match=r"layer 'body.1' \(ParametricLIFNode\)"):
        resolve_model(f"{user_module}:parametric", dataset=make_dataset())


def test_a_user_class_with_the_wrong_number_of_classes_is_refused(user_module: str) -> None:
    dataset = replace(make_dataset(), class_names=("a", "b"))
    with pytest.raises(ConfigError, match="3 logits, but the data 2 classes"):
        resolve_model(f"{user_module}:Net", dataset=dataset)


def test_a_frame_too_small_for_a_user_class_is_refused(user_module: str) -> None:
    with pytest.raises(ConfigError, match="cannot run on input"):
        resolve_model(f"{user_module}:Net", dataset=make_dataset(side=2))


def test_importing_a_user_class_leaves_the_import_path_alone(user_module: str) -> None:
    before = list(sys.path)
    resolve_model(f"{user_module}:Net", dataset=make_dataset())
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("digits-spikfomer", "Did you mean 'digits-spikformer'"),
        ("spikformer", "has no weights"),
        ("no/such/folder", "no checkpoint directory"),
        ("no_such_module:Net", "no module 'no_such_module'"),
    ],
)
def test_names_that_stand_for_nothing_are_explained(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve_model(text, dataset=make_dataset())


def test_weights_for_a_checkpoint_directory_are_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match="brings its own"):
        resolve_model(str(saved), weights=saved / WEIGHTS_NAME)


def test_a_user_class_without_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs data"):
        resolve_model("module:Net")


def test_data_are_given_the_normalization_of_the_network() -> None:
    matched = match_dataset(replace(make_dataset(), shape=(1, 16, 16)), make_spec())
    assert matched.normalization == Normalization(mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": (3, 16, 16)}, r"frames of shape \(3, 16, 16\)"),
        ({"shape": (1, 16, 16), "static": False}, "event recordings"),
        ({"shape": (1, 16, 16), "class_names": ("a", "b")}, "2 classes"),
    ],
)
def test_data_that_a_network_cannot_take_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        match_dataset(replace(make_dataset(), **changes), make_spec())
