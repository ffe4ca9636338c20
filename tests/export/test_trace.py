"""Networks that an ONNX file cannot express are refused with a cause."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spikingjelly.activation_based.neuron import LIFNode

from svitkit.errors import ConfigError, UnsupportedError
from svitkit.export.pipeline import export_onnx
from svitkit.export.verify import verify

SHAPE = (2, 4, 4)


class Net(torch.nn.Module):
    """A linear spiking network to be broken by its subclasses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(32, 10)
        self.lif = LIFNode(step_mode="m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif(3 * self.fc(x.flatten(2)))


class CountsCalls(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


class Remembers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x) + self.last
        self.last = logits.mean()
        return logits


class KeepsForInspection(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = super().forward(x)
        return self.seen


class Branches(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 100 else super().forward(-x)


class CallsTwice(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif(super().forward(x))


class Softmaxes(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(-1)


class IgnoresSpikes(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        return self.fc(x.flatten(2))


class ReturnsFrames(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif(x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (CountsCalls, "changes its buffer 'calls'"),
        (Remembers, "gives another result when it runs again: it remembers something outside its neurons in last"),
        (Branches, "control flow depends on data"),
        (CallsTwice, "neuron layer lif is called twice"),
        (Softmaxes, "unknown operator Softmax"),
        (IgnoresSpikes, "0 LIF nodes for 1 neuron layers"),
        (ReturnsFrames, r"returns shape \(4, 1, 2, 4, 4\)"),
    ],
)
def test_what_the_file_would_forget_or_cannot_say_is_refused(wrap, tmp_path, kind, message):
    with pytest.raises(UnsupportedError, match=message) as caught:
        export_onnx(wrap(kind(), family="user:Net", static=False, shape=SHAPE), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_network_may_keep_values_that_it_never_reads(wrap, tmp_path):
    checkpoint = wrap(KeepsForInspection(), family="user:Net", static=False, shape=SHAPE)
    export_onnx(checkpoint, tmp_path / "model.onnx")
    x = np.random.default_rng(0).standard_normal((4, 20, *SHAPE)).astype(np.float32)
    assert verify(tmp_path / "model.onnx", checkpoint, x).argmax_agreement == 1


def test_an_input_of_another_shape_is_refused(wrap, tmp_path):
    with pytest.raises(ConfigError, match=r"does not run on an input of shape \(4, 1, 3, 4, 4\)"):
        export_onnx(wrap(Net(), family="user:Net", static=False, shape=(3, 4, 4)), tmp_path / "model.onnx")


class Conventional(torch.nn.Module):
    """A user's network: batch norm after linear layers and on its own, soft reset, a scale kept as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.BatchNorm2d(2)
        self.fc1 = torch.nn.Linear(16, 12, bias=False)
        self.norm1 = torch.nn.BatchNorm1d(12)
        self.lif1 = LIFNode(tau=1.5, v_reset=None, decay_input=False, step_mode="m")
        self.fc2 = torch.nn.Linear(12, 10)
        self.norm2 = torch.nn.BatchNorm1d(2)
        self.lif2 = LIFNode(tau=3.0, v_threshold=0.25, v_reset=-0.5, step_mode="m")
        self.register_buffer("gain", torch.linspace(1, 2, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch = x.shape[:2]
        x = self.first(x.flatten(0, 1)).flatten(2)
        x = self.norm1(self.fc1(x).transpose(1, 2)).transpose(1, 2)
        x = self.lif1(x.reshape(steps, batch, 2, 12))
        x = self.norm2(self.fc2(x).flatten(0, 1)).reshape(steps, batch, 2, 10)
        return (self.lif2(x) * self.gain).mean(2)


@pytest.mark.parametrize("mode", ["sequence", "step"])
def test_a_users_network_with_other_neurons_and_norms_is_expressed_exactly(wrap, tmp_path, mode):
    model = Conventional()
    generator = torch.Generator().manual_seed(3)
    for norm in (model.first, model.norm1, model.norm2):
        norm.running_mean.normal_(generator=generator).mul_(0.2)
        norm.running_var.uniform_(0.05, 0.3, generator=generator)
    checkpoint = wrap(model, family="user:Conventional", static=False, shape=SHAPE)
    path = tmp_path / "model.onnx"
    metadata = export_onnx(checkpoint, path, mode=mode)
    assert [layer.params.v_reset for layer in metadata.lif_layers] == [None, -0.5]
    x = torch.randn(4, 100, *SHAPE, generator=generator).numpy()
    report = verify(path, checkpoint, x)
    assert [layer.name for layer in report.layers] == ["lif1", "lif2"]
    assert report.argmax_agreement == 1
    # first: scale and shift of 2; fc1 gets a bias of 12; norm2 is no norm over fc2's channels: scale and shift of 2
    assert metadata.parameter_bytes == 4 * (2 * 2 + 16 * 12 + 12 + 12 * 10 + 10 + 2 * 2)
