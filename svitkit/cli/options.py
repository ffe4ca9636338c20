"""Options that several verbs share, each with the one text that explains it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

FINDING = 3
"""Exit code of a verb that did its work and found something wanting."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name of 'svitkit models', a checkpoint directory, module:callable, or a family with --weights.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="State dict (.safetensors or .pth) for module:callable, or that of its authors for a family.",
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--argument",
        metavar="NAME=VALUE",
        help="Of module:callable, or of a family where its weights do not tell; may be repeated.",
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help="digits, npz:PATH, imagefolder:PATH, cifar10:PATH, fashion-mnist:PATH or nmnist:PATH.",
    ),
]
Timesteps = Annotated[
    int | None,
    typer.Option("--timesteps", metavar="T", min=1, help="Time steps of one inference, where nothing says so."),
]
BoardName = Annotated[str, typer.Option("--board", metavar="NAME", help="A name of 'svitkit boards'.")]
DeviceChoice = Annotated[
    Literal["cpu", "gpu"] | None,
    typer.Option(
        "--device",
        help="What to build for: cpu if not given; gpu is the board's GPU (of host the one that is found here), and "
        "what pocl always is.",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="USER@ADDRESS[:PORT]",
        help="Where the board is, by SSH; if not given, what boards.toml says (in ~/.config/svitkit).",
    ),
]
SingleFile = Annotated[
    bool, typer.Option("--single-file", help="Make one static program that needs nothing beside it, not even a libc.")
]
Wait = Annotated[
    int, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait while somebody else uses the board.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads of an inference; if not given, one for each (big) core of the board, 1 under emulation.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most that many images of a split.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue work that was stopped half-way.")]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        help="svitkit and primesvt prune, ours and the published policy; lottery makes single weights 0 and trains the "
        "others again, in rounds; token-skip and token-select let blocks compute fewer tokens, the first without "
        "training; aq4svit-greedy and aq4svit-beam search how many bits every block gets; int8 and int4 round the "
        "weights. Several, divided by commas: prune, leave out tokens, then round, under one budget of accuracy.",
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar="NAME",
        help="What method svitkit makes as small as accuracy allows: memory (if not given), macs, or latency as "
        "predicted for the board.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="What the method assumes, such as epsilon=1 or rates=0.1,0.3,0.5; may be given again. "
        "A wrong name shows all that there are.",
    ),
]
Sweep = Annotated[
    str,
    typer.Option(
        "--sweep",
        metavar="NAME",
        help="fast runs what candidates share once, and stops where accuracy is surely missed; plain runs every "
        "candidate whole on every image. Both decide the same.",
    ),
]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="Where candidates are measured: local is this process, ray a Ray cluster (pip install 'svitkit[ray]').",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="ADDRESS", help="The cluster for --executor ray; if not given, one is started here."
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        min=0,
        max=100,
        help="Largest loss of validation accuracy, in percentage points; 3, or 1.5 for aq4svit, if not given.",
    ),
]
MinSaving = Annotated[
    float | None,
    typer.Option(
        "--min-saving",
        metavar="SHARE",
        min=0,
        max=1,
        help="Least share of weight bytes to save; 0.25, or 0 for aq4svit, if not given.",
    ),
]
BeamWidth = Annotated[
    int | None,
    typer.Option("--beam-width", metavar="N", min=1, help="Networks that aq4svit-beam follows; 4 if not given."),
]
Finetune = Annotated[
    int, typer.Option("--finetune", metavar="EPOCHS", min=0, help="Epochs of training after the removal.")
]
BatchNormImages = Annotated[
    int,
    typer.Option(
        "--bn-images", metavar="N", min=0, help="Training images to estimate batch norms on again after removal."
    ),
]
