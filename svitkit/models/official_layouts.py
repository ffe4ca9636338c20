"""How the authors of the families name their tensors, as tables.

Every layer with weights is one row: the authors' layer and batch norm, the layer of svitkit's network and its batch
norm, and ``bias`` if the authors' layer has one. ``{i}`` stands for the number of a block; ``[qkv]`` for three layers
that are joined along their output channels, in this order.

Sources: the state dicts of the code that accompanies Zhou et al., "Spikformer", ICLR 2023; Yao et al., "Spike-driven
Transformer", NeurIPS 2023; Zhou et al., "QKFormer", NeurIPS 2024.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer with weights under both names.

    Attributes:
        convs: the authors' layers.
        norms: the batch norms behind them.
        conv: the layer of svitkit's network.
        norm: its batch norm.
        biased: whether the authors' layers have biases.
    """

    convs: tuple[str, ...]
    norms: tuple[str, ...]
    conv: str
    norm: str
    biased: bool


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The state dict of one of the authors' classes.

    Attributes:
        name: what people call it.
        family: a name of ``svitkit.models.families.FAMILIES``.
        marks: tensors that tell it from those further down in ``LAYOUTS``.
        stem: layers outside of blocks; the first reads the input.
        blocks: the layers of a block, by the name of the list of blocks.
        hidden: the authors' layer whose outputs are the hidden channels of an MLP of full width.
        unused: regular expressions of tensors that the authors' forward pass does not read.
        fixed: arguments of the family that follow from the class.
        open: arguments that the tensors do not tell, and what the authors' networks have.
    """

    name: str
    family: str
    marks: tuple[str, ...]
    stem: tuple[Layer, ...]
    blocks: Mapping[str, tuple[Layer, ...]]
    hidden: str
    unused: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    open: Mapping[str, str] = field(default_factory=dict)


def _table(theirs: str, ours: str, text: str) -> tuple[Layer, ...]:
    """Reads a table whose names lack the prefixes ``theirs`` and ``ours``."""
    return tuple(
        Layer(
            convs=_expand(theirs + convs),
            norms=_expand(theirs + norms),
            conv=ours + conv,
            norm=ours + norm,
            biased=bool(bias),
        )
        for convs, norms, conv, norm, *bias in (line.split() for line in text.splitlines() if line.strip())
    )


def _expand(name: str) -> tuple[str, ...]:
    several = re.search(r"\[(\w+)\]", name)
    return (name,) if several is None else tuple(name.replace(several[0], letter) for letter in several[1])


_SPIKFORMER_STEM = """
    proj_conv   proj_bn   stages.0.conv_bn.block.0             stages.0.conv_bn.block.1
    proj_conv1  proj_bn1  stages.1.conv_bn.block.0             stages.1.conv_bn.block.1
    proj_conv2  proj_bn2  stages.2.conv_bn.block.0             stages.2.conv_bn.block.1
    proj_conv3  proj_bn3  stages.3.conv_bn.block.0             stages.3.conv_bn.block.1
    rpe_conv    rpe_bn    positional_encoding.conv_bn.block.0  positional_encoding.conv_bn.block.1
"""
_SPIKFORMER_LINEAR_BLOCK = """
    attn.[qkv]_linear  attn.[qkv]_bn  attn.qkv_conv_bn.0   attn.qkv_conv_bn.1   bias
    attn.proj_linear   attn.proj_bn   attn.proj_conv_bn.0  attn.proj_conv_bn.1  bias
    mlp.fc1_linear     mlp.fc1_bn     mlp.fc1.0            mlp.fc1.1            bias
    mlp.fc2_linear     mlp.fc2_bn     mlp.fc2.0            mlp.fc2.1            bias
"""
_SPIKFORMER_CONV_BLOCK = """
    attn.[qkv]_conv  attn.[qkv]_bn  attn.qkv_conv_bn.0   attn.qkv_conv_bn.1
    attn.proj_conv   attn.proj_bn   attn.proj_conv_bn.0  attn.proj_conv_bn.1  bias
    mlp.fc1_conv     mlp.fc1_bn     mlp.fc1.0            mlp.fc1.1            bias
    mlp.fc2_conv     mlp.fc2_bn     mlp.fc2.0            mlp.fc2.1            bias
"""
_SDT_STEM = """
    proj_conv   proj_bn   stages.0.0     stages.0.1
    proj_conv1  proj_bn1  stages.1.0     stages.1.1
    proj_conv2  proj_bn2  stages.2.0     stages.2.1
    proj_conv3  proj_bn3  final_stage.0  final_stage.1
    rpe_conv    rpe_bn    rpe_conv       rpe_bn
"""
_SDT_BLOCK = """
    attn.q_conv     attn.q_bn     attn.q_conv     attn.q_bn
    attn.k_conv     attn.k_bn     attn.k_conv     attn.k_bn
    attn.v_conv     attn.v_bn     attn.v_conv     attn.v_bn
    attn.proj_conv  attn.proj_bn  attn.proj_conv  attn.proj_bn  bias
    mlp.fc1_conv    mlp.fc1_bn    mlp.fc1         mlp.bn1       bias
    mlp.fc2_conv    mlp.fc2_bn    mlp.fc2         mlp.bn2       bias
"""
_QKFORMER_STEM = """
    1.proj_conv      1.proj_bn      1.conv1       1.bn1
    1.proj1_conv     1.proj1_bn     1.conv2       1.bn2
    1.proj_res_conv  1.proj_res_bn  1.shortcut.0  1.shortcut.1
    2.proj3_conv     2.proj3_bn     2.conv1       2.bn1
    2.proj4_conv     2.proj4_bn     2.conv2       2.bn2
    2.proj_res_conv  2.proj_res_bn  2.shortcut.0  2.shortcut.1
    3.proj3_conv     3.proj3_bn     3.conv1       3.bn1
    3.proj4_conv     3.proj4_bn     3.conv2       3.bn2
    3.proj_res_conv  3.proj_res_bn  3.shortcut.0  3.shortcut.1
"""
_QKFORMER_IMAGENET_STEM = f"""{_QKFORMER_STEM}
    1.proj2_conv     1.proj2_bn     1.conv3       1.bn3
"""
_QK_ATTENTION = """
    tssa.[qk]_conv  tssa.[qk]_bn  attn.qk_conv_bn.0    attn.qk_conv_bn.1
    tssa.proj_conv  tssa.proj_bn  attn.proj_conv_bn.0  attn.proj_conv_bn.1  bias
"""
_QKFORMER_MLP = """
    mlp.fc1_conv  mlp.fc1_bn  mlp.fc1  mlp.bn1  bias
    mlp.fc2_conv  mlp.fc2_bn  mlp.fc2  mlp.bn2  bias
"""
_QKFORMER_CIFAR_MLP = """
    mlp.mlp1_conv  mlp.mlp1_bn  mlp.fc1  mlp.bn1  bias
    mlp.mlp2_conv  mlp.mlp2_bn  mlp.fc2  mlp.bn2  bias
"""


def _self_attention(name: str) -> str:
    return f"""
    {name}.[qkv]_conv  {name}.[qkv]_bn  attn.qkv_conv_bn.0   attn.qkv_conv_bn.1
    {name}.proj_conv   {name}.proj_bn   attn.proj_conv_bn.0  attn.proj_conv_bn.1  bias
    """


def _stages(attention: str, mlp: str) -> dict[str, tuple[Layer, ...]]:
    texts = {"stage1": _QK_ATTENTION + mlp, "stage2": _QK_ATTENTION + mlp, "stage3": _self_attention(attention) + mlp}
    return {stage: _table(f"{stage}.{{i}}.", f"{stage}.{{i}}.", text) for stage, text in texts.items()}


_LAYER_NORMS = (r"block\.\d+\.norm[12]\.(weight|bias)",)

LAYOUTS = (
    Layout(
        name="Spikformer for CIFAR",
        family="spikformer",
        marks=("block.0.attn.q_linear.weight",),
        stem=_table("patch_embed.", "patch_embed.", _SPIKFORMER_STEM),
        blocks={"block": _table("block.{i}.", "blocks.{i}.", _SPIKFORMER_LINEAR_BLOCK)},
        hidden="block.0.mlp.fc1_linear",
        unused=_LAYER_NORMS,
        fixed={"patch_size": 4, "pool_after_lif": True},
        open={"num_heads": "12 in the authors' 4-384"},
    ),
    Layout(
        name="Spike-driven Transformer",
        family="spike-driven-transformer",
        marks=("block.0.attn.talking_heads.weight",),
        stem=_table("patch_embed.", "patch_embed.", _SDT_STEM),
        blocks={"block": _table("block.{i}.", "blocks.{i}.", _SDT_BLOCK)},
        hidden="block.0.mlp.fc1_conv",
        unused=(r"block\.\d+\.attn\.talking_heads\.weight",),
        open={"pooling_stat": "0011 in the authors' networks for CIFAR, 1111 for ImageNet"},
    ),
    Layout(
        name="Spikformer for event recordings",
        family="spikformer",
        marks=("block.0.attn.q_conv.weight", "pos_embed"),
        stem=_table("patch_embed.", "patch_embed.", _SPIKFORMER_STEM),
        blocks={"block": _table("block.{i}.", "blocks.{i}.", _SPIKFORMER_CONV_BLOCK)},
        hidden="block.0.mlp.fc1_conv",
        unused=(*_LAYER_NORMS, "pos_embed", r"norm\.(weight|bias)"),
        fixed={"patch_size": 16, "pool_after_lif": True, "attention_scale": 0.25},
        open={"num_heads": "16 in the authors' 2-256"},
    ),
    Layout(
        name="Spikformer for ImageNet",
        family="spikformer",
        marks=("block.0.attn.q_conv.weight",),
        stem=_table("patch_embed.", "patch_embed.", _SPIKFORMER_STEM),
        blocks={"block": _table("block.{i}.", "blocks.{i}.", _SPIKFORMER_CONV_BLOCK)},
        hidden="block.0.mlp.fc1_conv",
        unused=_LAYER_NORMS,
        fixed={"patch_size": 16, "pool_after_lif": True},
        open={"num_heads": "8 in the authors' 8-512"},
    ),
    Layout(
        name="QKFormer for ImageNet",
        family="qkformer",
        marks=("patch_embed1.proj2_conv.weight", "stage3.0.attn.q_conv.weight"),
        stem=_table("patch_embed", "patch_embed", _QKFORMER_IMAGENET_STEM),
        blocks=_stages("attn", _QKFORMER_MLP),
        hidden="stage3.0.mlp.fc1_conv",
        fixed={"patch_size": 16},
        open={"num_heads": "6 in the authors' 10-384, 8 in 10-512, 12 in 10-768"},
    ),
    Layout(
        name="QKFormer for CIFAR",
        family="qkformer",
        marks=("stage3.0.ssa.q_conv.weight", "stage3.0.mlp.mlp1_conv.weight"),
        stem=_table("patch_embed", "patch_embed", _QKFORMER_STEM),
        blocks=_stages("ssa", _QKFORMER_CIFAR_MLP),
        hidden="stage3.0.mlp.mlp1_conv",
        fixed={"patch_size": 4, "num_heads": 8},
    ),
)
"""The first whose marks are all there is the one: the special stand above the general."""

MISFITS = {
    "patch_embed1.proj3_conv.weight": "the authors' QKFormer for event recordings, whose embeddings svitkit does not "
    "have. Write its class with spikingjelly's layers, and name it: module:callable --weights FILE",
    "patch_embed.stages.0.conv_bn.block.0.weight": "spikingjelly's Spikformer. Name the function that builds it: "
    "module:callable --weights FILE, for example spikingjelly.activation_based.model.spikformer:spikformer_cifar10",
}
"""State dicts that are known and not loaded here, by a tensor that shows them."""
