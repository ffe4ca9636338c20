"""State dicts of the authors' code become networks that compute the authors' equations, or are refused."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from svitkit.boards.board import load_board
from svitkit.compress.groups import find_groups
from svitkit.compress.pipeline import compress_model
from svitkit.data.assemble import assemble, checked_split
from svitkit.data.dataset import Dataset, sequence
from svitkit.errors import ConfigError, UnsupportedError
from svitkit.manifest import Normalization
from svitkit.models.checkpoint import Checkpoint, checkpoint_sha256, save_checkpoint
from svitkit.models.families import build_family
from svitkit.models.official import IMAGENET_NORMALIZATION, recognize
from svitkit.models.official_weights import translate
from svitkit.models.resolve import resolve_model
from svitkit.models.run import example_input, forward_logits
from svitkit.models.weights import load_strictly
from svitkit.onnx_reference import ReferenceSession
from svitkit.proven import build_proven, export_proven
from svitkit.runtime.session import Session
from tests.models.official_reference import State, qkformer
from tests.models.official_states import CASES, CLASSES, Case, fitted, images

TIMESTEPS, EXACT = 4, 1e-9
VARIANTS = ("spikformer-cifar", "spikformer-imagenet", "spikformer-dvs", "qkformer-cifar")
"""Those that have layers which spikingjelly's classes do not have."""


def data_for(case: Case, classes: int = CLASSES) -> Dataset:
    """Random frames of the case's shape; those with two channels are recordings."""
    rng = np.random.default_rng(0)
    events = case.frame[0] == 2

    def part(count: int) -> Any:
        shape = (count, TIMESTEPS, *case.frame) if events else (count, *case.frame)
        x = rng.integers(0, 3 if events else 256, shape).astype(np.uint8)
        return checked_split(x, np.arange(count) % classes, classes=classes, source="random")

    names = tuple(f"class {index}" for index in range(classes))
    return assemble("random", part(max(40, 2 * classes)), part(max(20, classes)), class_names=names)


def load(name: str, path: Path, state: State | None = None, **changes: Any) -> Checkpoint:
    """Writes a state dict and reads it as a user does."""
    case = CASES[name]
    torch.save(fitted(name).state if state is None else state, path)
    asked: dict[str, Any] = {"timesteps": TIMESTEPS, "arguments": case.given, "dataset": data_for(case)}
    return resolve_model(case.family, weights=path, **{**asked, **changes})


def in_float64(name: str, arguments: dict[str, Any]) -> nn.Module:
    case, state = CASES[name], fitted(name).state
    model = build_family(case.family, arguments).eval().double()
    layout = recognize(state, case.family, name)
    load_strictly(model, translate(state, layout, model.state_dict(), name), name)
    return model


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return forward_logits(model, x)


@pytest.mark.parametrize("name", CASES)
def test_the_logits_are_those_of_the_equations(name: str, tmp_path: Path) -> None:
    case, net = CASES[name], fitted(name)
    x = images(case)
    wanted = case.forward(net, x)
    assert all(0.05 < rate < 0.9 for rate in net.rates.values()), net.rates
    assert float(wanted.std(0).min()) > 1e-3
    arguments = load(name, tmp_path / "official.pth").spec.arguments
    assert {key: arguments[key] for key in case.told} == case.told
    assert float((logits_of(in_float64(name, arguments), x) - wanted).abs().max()) < EXACT


@pytest.mark.parametrize("name", CASES)
def test_the_checkpoint_classifies_as_the_equations_do_and_survives_saving(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    checkpoint = load(name, tmp_path / "official.pth")
    x = images(case, batch=8)
    torch.testing.assert_close(
        logits_of(checkpoint.model, x.float()).double(), case.forward(fitted(name), x), rtol=0, atol=0.02
    )
    assert checkpoint.spec.provenance["weights"] == "official.pth"
    assert checkpoint.spec.original_parameter_bytes == checkpoint.parameter_bytes()
    save_checkpoint(tmp_path / "saved", checkpoint.model, checkpoint.spec)
    assert checkpoint_sha256(tmp_path / "saved") == checkpoint_sha256(checkpoint)


@pytest.mark.parametrize("name", ["spikformer-cifar", "spikformer-imagenet"])
def test_pooling_before_the_neurons_would_give_other_logits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    arguments = load(name, tmp_path / "official.pth").spec.arguments
    x = images(case)
    logits = logits_of(in_float64(name, {**arguments, "pool_after_lif": False}), x)
    assert float((logits - case.forward(fitted(name), x)).abs().max()) > 1e-2


@pytest.mark.parametrize(("name", "cifar", "heads"), [("qkformer-imagenet", False, 2), ("qkformer-cifar", True, 8)])
def test_neurons_that_integrate_over_the_batch_agree_for_one_image_and_differ_for_several(
    name: str, cifar: bool, heads: int, tmp_path: Path
) -> None:
    model = in_float64(name, load(name, tmp_path / "official.pth").spec.arguments)
    as_published = partial(qkformer, fitted(name), count=heads, cifar=cifar, over_batch=True)
    x = images(CASES[name])
    assert float((logits_of(model, x[:, :1]) - as_published(x[:, :1])).abs().max()) < EXACT
    assert float((logits_of(model, x) - as_published(x)).abs().max()) > 1e-3


def written(state: State, form: str, folder: Path) -> Path:
    single = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    prefixed = {f"module.{name}": value for name, value in single.items()}
    beside = {"epoch": 3, "args": argparse.Namespace(num_heads=4), "optimizer": {"state": {0: {"step": 5}}}}
    if form.endswith(".safetensors"):
        safetensors.torch.save_file(prefixed if "module" in form else single, folder / form)
    else:
        content = {"bare.pt": single, "model.pth": {"model": single, **beside}}
        torch.save(content.get(form, {"state_dict": prefixed, **beside}), folder / form)
    return folder / form


@pytest.mark.parametrize("form", ["bare.pt", "model.pth", "module.pth.tar", "bare.safetensors", "module.safetensors"])
def test_every_form_of_the_file_gives_the_same_network(form: str, tmp_path: Path) -> None:
    case, state = CASES["spikformer-cifar"], fitted("spikformer-cifar").state
    found = resolve_model(
        case.family,
        weights=written(state, form, tmp_path),
        dataset=data_for(case),
        timesteps=TIMESTEPS,
        arguments=case.given,
    )
    plain = load("spikformer-cifar", tmp_path / "plain.pth")
    for name, value in found.model.state_dict().items():
        torch.testing.assert_close(value, plain.model.state_dict()[name], rtol=0, atol=1e-6)


class Attack:
    """Pickles as a call that writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "ran")


def test_code_in_the_command_line_beside_the_weights_is_refused_and_does_not_run(tmp_path: Path) -> None:
    case, path, marker = CASES["sdt-cifar"], tmp_path / "official.pth", tmp_path / "ran"
    torch.save({"state_dict": fitted("sdt-cifar").state, "args": argparse.Namespace(x=Attack(marker))}, path)
    with pytest.raises(ConfigError, match="holds more than tensors"):
        resolve_model(case.family, weights=path, dataset=data_for(case), timesteps=4, arguments=case.given)
    assert not marker.exists()


def test_a_network_of_imagenet_gets_the_normalization_of_its_training(tmp_path: Path) -> None:
    name, state = "spikformer-imagenet", dict(fitted("spikformer-imagenet").state)
    assert load(name, tmp_path / "few.pth").spec.normalization == data_for(CASES[name]).normalization
    state |= {"head.weight": torch.randn(1000, 32), "head.bias": torch.randn(1000)}
    checkpoint = load(name, tmp_path / "all.pth", state, dataset=data_for(CASES[name], classes=1000))
    assert (
        checkpoint.spec.normalization
        == IMAGENET_NORMALIZATION
        == Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    )


def without(name: str, *gone: str) -> State:
    return {key: value for key, value in fitted(name).state.items() if key not in gone}


def test_what_the_tensors_do_not_tell_is_asked_for_in_one_go(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--argument num_heads=\.\.\. \(12 in the authors' 4-384\) and --timesteps T"
    ):
        load("spikformer-cifar", tmp_path / "official.pth", timesteps=None, arguments={})
    with pytest.raises(ConfigError, match=r"--argument pooling_stat=\.\.\. \(0011 in"):
        load("sdt-cifar", tmp_path / "official.pth", arguments={})
    with pytest.raises(ConfigError, match="needs data"):
        load("sdt-cifar", tmp_path / "official.pth", dataset=None)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("spikformer-cifar", {"num_heads": 4, "embed_dims": 64}, "'embed_dims' is 64, but .* say 32"),
        ("sdt-cifar", {"num_heads": 8, "pooling_stat": "0011"}, "'num_heads' is 8, but .* say 4"),
        ("spikformer-cifar", {"num_heads": 4, "T": 2}, "'T' is 2, but .* say 4"),
        ("spikformer-cifar", {"num_heads": 4, "num_head": 2}, "argument 'num_head'"),
        ("spikformer-cifar", {"num_heads": 5}, "multiple of 5"),
        ("qkformer-imagenet", {"num_heads": [1, 2]}, "argument 'num_heads"),
    ],
)
def test_arguments_that_contradict_the_tensors_or_make_no_sense_are_refused(
    name: str, arguments: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        load(name, tmp_path / "official.pth", arguments=arguments)


def test_a_missing_tensor_and_an_unknown_one_are_named(tmp_path: Path) -> None:
    state = without("spikformer-cifar", "block.1.mlp.fc2_bn.running_var") | {"extra.weight": torch.zeros(3)}
    with pytest.raises(
        ConfigError,
        match=r"looks like Spikformer for CIFAR.*1 missing \(block\.1\.mlp\.fc2_bn\.running_var\) and "
        r"1 unknown \(extra\.weight\)",
    ):
        load("spikformer-cifar", tmp_path / "official.pth", state)


def test_an_unknown_tensor_alone_is_refused_too(tmp_path: Path) -> None:
    state = fitted("spikformer-cifar").state | {"norm.weight": torch.ones(32)}
    with pytest.raises(ConfigError, match=r"has 1 unknown \(norm\.weight\)"):
        load("spikformer-cifar", tmp_path / "official.pth", state)


@pytest.mark.parametrize("gone", ["block.0.attn.q_linear.bias", "head.bias", "patch_embed.proj_conv.weight"])
def test_no_missing_tensor_is_taken_for_zero(gone: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{gone}.* missing|missing .{gone}"):
        load("spikformer-cifar", tmp_path / "official.pth", without("spikformer-cifar", gone))


@pytest.mark.parametrize(
    ("tensor", "shape", "says"),
    [
        ("block.1.attn.k_linear.weight", (32, 16), r"'block.1.attn.k_linear.weight' has .* but \(32, 32, 1\)"),
        ("patch_embed.rpe_conv.weight", (32, 32, 1, 1), r"shape \(32, 32, 1, 1\), but \(32, 32, 3, 3\)"),
        ("block.0.mlp.fc2_bn.bias", (31,), r"shape \(31,\), but \(32,\)"),
        ("block.0.attn.v_bn.num_batches_tracked", (2,), r"shape \(2,\), but \(\)"),
        ("head.weight", (5,), r"'head.weight' is of shape \(5,\)"),
    ],
)  # fmt: skip
def test_a_tensor_of_another_shape_is_named(tensor: str, shape: tuple[int, ...], says: str, tmp_path: Path) -> None:
    state = fitted("spikformer-cifar").state | {tensor: torch.zeros(shape)}
    with pytest.raises(ConfigError, match=says):
        load("spikformer-cifar", tmp_path / "official.pth", state)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = fitted("spikformer-cifar").state | {"head.bias": torch.full((CLASSES,), torch.nan)}
    with pytest.raises(ConfigError, match="not finite"):
        load("spikformer-cifar", tmp_path / "official.pth", state)


def test_a_state_dict_of_another_family_names_its_own(tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    torch.save(fitted("sdt-cifar").state, path)
    with pytest.raises(
        ConfigError, match=r"holds a Spike-driven Transformer, not a 'spikformer'\. Name it 'spike-driven"
    ):
        resolve_model("spikformer", weights=path, dataset=data_for(CASES["sdt-cifar"]), timesteps=4)


def test_a_state_dict_of_something_else_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it has conv1\.weight, but nothing .*QKFormer for CIFAR stage3\.0\.ssa"):
        load("qkformer-cifar", tmp_path / "official.pth", {"conv1.weight": torch.zeros(3)})


@pytest.mark.parametrize(
    ("name", "extra", "says"),
    [
        ("spikformer-cifar", {"block.0.attn.q_lif.w": torch.tensor(0.0)}, "learned time constants"),
        ("qkformer-cifar", {"patch_embed1.proj3_conv.weight": torch.zeros(1)}, "QKFormer for event recordings"),
        ("sdt-cifar", {"patch_embed.proj_conv.weight": torch.zeros(4, 2, 3, 3)}, "CIFAR10-DVS"),
    ],
)
def test_networks_that_are_known_and_cannot_be_expressed_are_refused(
    name: str, extra: State, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=says):
        load(name, tmp_path / "official.pth", fitted(name).state | extra)


def test_names_of_spikingjelly_lead_to_its_function(tmp_path: Path) -> None:
    case = CASES["spikformer-cifar"]
    ours = load("spikformer-cifar", tmp_path / "official.pth").model.state_dict()
    with pytest.raises(UnsupportedError, match="spikformer:spikformer_cifar10"):
        load("spikformer-cifar", tmp_path / "ours.pth", dict(ours), dataset=data_for(case))


def test_data_of_another_kind_are_refused(tmp_path: Path) -> None:
    gray = replace(CASES["sdt-cifar"], frame=(1, 16, 16))
    with pytest.raises(ConfigError, match="3 channels, but data 'random' have 1"):
        load("sdt-cifar", tmp_path / "official.pth", dataset=data_for(gray))
    with pytest.raises(ConfigError, match="5 logits, but the data 7 classes"):
        load("sdt-cifar", tmp_path / "official.pth", dataset=data_for(CASES["sdt-cifar"], classes=7))


@pytest.mark.parametrize("name", VARIANTS)
def test_stems_and_hidden_layers_of_every_variant_can_be_pruned(name: str, tmp_path: Path) -> None:
    checkpoint = load(name, tmp_path / "official.pth")
    groups = find_groups(checkpoint.model, example_input(checkpoint.spec))
    prunable = [found.group.name for found in groups if found.prunable]
    assert sum("patch_embed" in group for group in prunable) == 3
    assert sum("mlp.fc1" in group for group in prunable) == sum(np.atleast_1d(checkpoint.spec.arguments["depths"]))


def pruned(name: str, folder: Path) -> tuple[Checkpoint, Dataset]:
    dataset = data_for(CASES[name])
    checkpoint = load(name, folder / "official.pth", dataset=dataset)
    result = compress_model(checkpoint, dataset, folder / "small", max_drop=100.0, min_saving=0.2, limit=8)
    assert result.satisfied
    return result.checkpoint, dataset


def test_a_state_dict_is_pruned_exported_and_runs(tmp_path: Path) -> None:
    checkpoint, dataset = pruned("spikformer-cifar", tmp_path)
    assert checkpoint.parameter_bytes() < 0.8 * checkpoint.spec.original_parameter_bytes
    export_proven(checkpoint, tmp_path / "model.onnx", dataset=dataset)
    x = sequence(dataset.test.x, dataset, timesteps=TIMESTEPS)
    found = np.stack([ReferenceSession(tmp_path / "model.onnx").run(x[:, i]).logits for i in range(4)])
    np.testing.assert_allclose(found, logits_of(checkpoint.model, torch.tensor(x[:, :4])).numpy(), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_class_of_the_authors_runs_in_a_bundle_as_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    checkpoint, dataset = pruned(name, tmp_path)
    onnx, bundle = tmp_path / "model.onnx", tmp_path / "bundle"
    export_proven(checkpoint, onnx, dataset=dataset)
    build_proven(onnx, load_board("host"), bundle, dataset)
    reference = ReferenceSession(onnx)
    with Session(bundle) as session:
        for i in range(4):
            x = sequence(dataset.test.x[i : i + 1], dataset, timesteps=TIMESTEPS)
            np.testing.assert_allclose(
                session.run(np.ascontiguousarray(x[0] if dataset.static else x)).ravel(),
                reference.run(x[:, 0]).logits,
                atol=1e-4,
            )
