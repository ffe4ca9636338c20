"""Damages valid inputs of every reader and looks that each ends in success or in an error of svitkit.

    python -m tests.fuzz [--count 10000] [--seed 0] [--first 0] [READER...]

Every reader runs in a process of its own with a limit on its memory; a limit on the time of one input catches hangs.
The same seed and number make the same input again. Exit 1 if anything was found.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from svitkit.errors import SvitError
from tests.fuzz.readers import READERS, Reader

TIME_LIMIT_S = 20.0
MEMORY_BYTES = 2 << 30
"""How much more memory than before a reader may take, by addresses."""
MESSAGE_LETTERS = 20_000
"""Of an error that a person may read."""
MOST_FINDINGS = 20
NOTE = struct.Struct("<qqqd")


@dataclass
class Result:
    """What became of a reader's inputs."""

    accepted: int = 0
    refused: int = 0
    slowest_ms: float = 0.0
    peak_bytes: int = 0
    findings: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Joins what came later."""
        self.accepted += other.accepted
        self.refused += other.refused
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.findings += other.findings


def damaged(reader: Reader, seed: int, number: int) -> bytes:
    """Makes an input from the campaign's seed and its number."""
    rng = random.Random(f"{seed} {reader.name} {number}")
    return reader.mutate(rng, rng.choice(list(reader.seeds())))


def read_all(reader: Reader, numbers: range, seed: int, current: mmap.mmap) -> Result:
    """Reads inputs in this process.

    Args:
        reader: what reads them.
        numbers: of the inputs.
        seed: of the campaign.
        current: where the number of the input that is read, and what became of those before it, is noted.
    """
    result, before = Result(), _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status_bytes("VmSize") + MEMORY_BYTES, hard))
    with TemporaryDirectory() as scratch:
        for number in numbers:
            NOTE.pack_into(current, 0, number, result.accepted, result.refused, result.slowest_ms)
            content = damaged(reader, seed, number)
            faulthandler.dump_traceback_later(TIME_LIMIT_S, exit=True)
            start = time.perf_counter()
            try:
                reader.read(content, Path(scratch))
                result.accepted += 1
            except SvitError as error:
                result.refused += 1
                if len(str(error)) > MESSAGE_LETTERS:
                    result.findings.append(f"input {number}: an error of {len(str(error))} letters")
            except Exception as error:
                result.findings.append(f"input {number}: {_where(error)}")
            result.slowest_ms = max(result.slowest_ms, 1000 * (time.perf_counter() - start))
            faulthandler.cancel_dump_traceback_later()
            if len(result.findings) >= MOST_FINDINGS:
                break
    result.peak_bytes = max(0, _status_bytes("VmHWM") - before)
    return result


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _where(error: Exception) -> str:
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in own[:-4:-1])
    return f"{type(error).__name__}: {str(error)[:200]!r} at {place}"


def campaign(reader: Reader, count: int, seed: int, first: int = 0) -> Result:
    """Reads inputs in a process of its own, and goes on behind one that ends the process."""
    reader.seeds()
    result, number = Result(), first
    while number < first + count and len(result.findings) < MOST_FINDINGS:
        current = mmap.mmap(-1, NOTE.size)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            try:
                found = read_all(reader, range(number, first + count), seed, current)
                os.write(writing, json.dumps(vars(found)).encode())
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        if told:
            result.add(Result(**json.loads(told)))
            break
        number, *counts = NOTE.unpack_from(current)
        result.add(Result(*counts))
        ended = f"by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "itself: too slow"
        result.findings.append(f"input {number}: the process ended {ended}")
        number += 1
    return result


def main() -> int:
    """Runs the campaign and prints a table."""
    names = [reader.name for reader in READERS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(names)}; all if none is named")
    parser.add_argument("--count", type=int, default=10_000, help="inputs for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    options = parser.parse_args()
    unknown = set(options.readers) - set(names)
    if unknown:
        parser.error(f"there is no reader {', '.join(sorted(unknown))}")
    table = Table(
        "reader", "inputs", "accepted", "refused", "slowest ms", "peak MiB", "findings", title=f"seed {options.seed}"
    )
    findings: Counter[str] = Counter()
    for reader in READERS:
        if options.readers and reader.name not in options.readers:
            continue
        result = campaign(reader, options.count, options.seed, options.first)
        inputs = result.accepted + result.refused + len(result.findings)
        cells = (
            inputs,
            result.accepted,
            result.refused,
            f"{result.slowest_ms:.0f}",
            f"{result.peak_bytes / 2**20:.0f}",
        )
        table.add_row(reader.name, *map(str, cells), str(len(result.findings)))
        findings[reader.name] += len(result.findings)
        print(f"{reader.name}: {inputs} inputs, {len(result.findings)} findings", file=sys.stderr)
        for finding in result.findings:
            print(f"  {reader.name} --seed {options.seed}, {finding}", file=sys.stderr)
    Console(width=100).print(table)
    return 1 if findings.total() else 0


if __name__ == "__main__":
    sys.exit(main())
