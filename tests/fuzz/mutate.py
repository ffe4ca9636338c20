"""Damages files the way that breaks readers: cut, spliced, with extreme numbers, deep, doubled, in strange letters.

A mutation is a function of a generator and the content, so that a seed and a number give the same input again.
"""

from __future__ import annotations

import json
import math
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import onnx

from svitkit.errors import SvitError
from svitkit.onnx_check import check_operator

NUMBERS = ["0", "-0", "-1", "1", "2", "7", "255", "256", "65536", "2147483648", "4294967296", "9223372036854775807"]
NUMBERS += ["9223372036854775808", "18446744073709551616", "1" + "0" * 400, "1e9", "1e308", "-1e999", "NaN", "Infinity"]
NUMBERS += ["-Infinity", "0.1", "1e-320", "nan", "0x10", "1_000", "٣", "²", "9" * 5000]
WORDS = ["", " ", "\n", "\0", "\x1b[2J", "'", '"', "\\", "../../etc/passwd", "/etc/passwd", "-oProxyCommand=x", "$(id)"]
WORDS += [
    "\ud800",
    "é",
    "\u202e",
    "\ufeff",
    "\U0001d4b3",
    "a" * 10_000,
    "__class__",
    "null",
    "true",
    "[]",
    "{}",
    "os:system",
]
INTEGERS = [0, 1, -1, 2, 3, 127, 128, 255, 256, 1 << 15, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 60, (1 << 63) - 1]
FLOATS = [0.0, -0.0, 0.1, -1.0, 1e30, -1e30, 1e-40, float("nan"), float("inf")]
DEPTH = 100_000
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
Mutation = Callable[[random.Random, bytes], bytes]


def flip(rng: random.Random, content: bytes) -> bytes:
    """Changes some bits."""
    changed = bytearray(content or b"\0")
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: random.Random, content: bytes) -> bytes:
    """Writes a number of extreme value somewhere, as 1 to 8 bytes."""
    size = rng.choice([1, 2, 4, 8])
    value = rng.choice([0, 1, (1 << (8 * size)) - 1, 1 << (8 * size - 1), rng.getrandbits(8 * size)])
    at = rng.randrange(len(content) + 1)
    return content[:at] + value.to_bytes(size, rng.choice(["little", "big"])) + content[at + size :]


def cut(rng: random.Random, content: bytes) -> bytes:
    """Ends a file early."""
    return content[: rng.randrange(len(content) + 1)]


def drop(rng: random.Random, content: bytes) -> bytes:
    """Takes a piece out."""
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + content[last:]


def splice(rng: random.Random, content: bytes) -> bytes:
    """Puts a piece somewhere else, once or often."""
    first = rng.randrange(len(content) + 1)
    piece = content[first : first + rng.choice([1, 4, 16, 256])]
    at = rng.randrange(len(content) + 1)
    return content[:at] + piece * rng.choice([1, 1, 2, 100]) + content[at:]


def insert(rng: random.Random, content: bytes) -> bytes:
    """Inserts strange words or noise."""
    at = rng.randrange(len(content) + 1)
    noise = rng.choice([rng.choice(WORDS).encode(errors="surrogatepass"), rng.randbytes(rng.choice([1, 4, 64]))])
    return content[:at] + noise + content[at:]


def renumber(rng: random.Random, content: bytes) -> bytes:
    """Replaces a decimal number by an extreme one."""
    found = list(NUMBER.finditer(content))
    if not found:
        return flip(rng, content)
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(NUMBERS).encode() + content[match.end() :]


def lines(rng: random.Random, content: bytes) -> bytes:
    """Doubles, removes or exchanges lines."""
    rows = content.split(b"\n")
    at, other = rng.randrange(len(rows)), rng.randrange(len(rows))
    kind = rng.randrange(3)
    if kind == 0:
        rows.insert(other, rows[at])
    elif kind == 1:
        del rows[at]
    else:
        rows[at], rows[other] = rows[other], rows[at]
    return b"\n".join(rows)


def words(rng: random.Random, content: bytes) -> bytes:
    """Exchanges two words, or puts a strange one in the place of one."""
    parts = re.split(rb"([^\w.+-]+)", content)
    at = 2 * rng.randrange((len(parts) + 1) // 2)
    other = 2 * rng.randrange((len(parts) + 1) // 2)
    parts[at] = rng.choice([parts[other], rng.choice(WORDS).encode(errors="surrogatepass")])
    return b"".join(parts)


BYTES: Sequence[Mutation] = (flip, overwrite, cut, drop, splice, insert)
TEXT: Sequence[Mutation] = (renumber, renumber, renumber, lines, words, words, flip, cut, drop, splice, insert)


def any_of(mutations: Sequence[Mutation]) -> Mutation:
    """One to four of these mutations behind one another."""

    def mutate(rng: random.Random, content: bytes) -> bytes:
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            content = rng.choice(mutations)(rng, content)
        return content

    return mutate


def mutate_json(rng: random.Random, content: bytes) -> bytes:
    """Changes a JSON document as a tree: values, keys, depth; or as text."""
    if rng.random() < 0.2:
        return any_of(TEXT)(rng, content)
    marks: dict[str, str] = {}
    tree = json.loads(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        tree = _changed(rng, tree, marks)
    text = json.dumps(tree)
    for mark, raw in marks.items():
        text = text.replace(f'"{mark}"', raw)
    if rng.random() < 0.05:
        text = text.replace("{", '{"format_version": 1, ', 1)  # a key twice, or an unknown one
    return text.encode(errors="surrogatepass")


def _changed(rng: random.Random, tree: Any, marks: dict[str, str]) -> Any:
    """Changes one value somewhere in a tree."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        tree, key = dict(tree), rng.choice(list(tree))
        kind = rng.random()
        if kind < 0.08:
            del tree[key]
        elif kind < 0.16:
            tree[rng.choice([*WORDS[:-1], *tree])] = tree[key]
        else:
            tree[key] = _changed(rng, tree[key], marks)
        return tree
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        tree, at = list(tree), rng.randrange(len(tree))
        kind = rng.random()
        if kind < 0.1:
            del tree[at]
        elif kind < 0.2:
            tree.insert(rng.randrange(len(tree) + 1), tree[at])
        elif kind < 0.23:
            tree = tree * rng.choice([2, 1000])
        else:
            tree[at] = _changed(rng, tree[at], marks)
        return tree
    return _strange(rng, tree, marks)


def _strange(rng: random.Random, tree: Any, marks: dict[str, str]) -> Any:
    kind = rng.random()
    if kind < 0.45:
        raw = rng.choice(NUMBERS)
    elif kind < 0.5:
        depth = rng.choice([10, 1000, DEPTH])
        raw = rng.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth])
    elif kind < 0.8:
        return rng.choice(WORDS)
    else:
        return rng.choice([None, True, False, [], {}, [tree], {"a": tree}, str(tree)[:99]])
    mark = f"mark{len(marks)}"
    marks[mark] = raw
    return mark


def mutate_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Changes the JSON header of a safetensors file, with a length that fits mostly; or its bytes."""
    if rng.random() < 0.4:
        return any_of(BYTES)(rng, content)
    size = int.from_bytes(content[:8], "little")
    header = mutate_json(rng, content[8 : 8 + size])
    length = rng.choice([len(header)] * 9 + [rng.choice(INTEGERS) % (1 << 63)])
    return length.to_bytes(8, "little") + header + content[8 + size :]


def mutate_onnx(rng: random.Random, content: bytes) -> bytes:
    """Changes fields of an ONNX file, so that it stays one and reaches the checks behind the parser; or its bytes."""
    if rng.random() < 0.15:
        return any_of(BYTES)(rng, content)
    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        _change_message(rng, model, depth=0)
    if rng.random() < 0.15:
        for entry in model.metadata_props:
            try:
                entry.value = mutate_json(rng, entry.value.encode()).decode()
            except ValueError:
                continue
    return bytes(model.SerializeToString())


def mutate_node(rng: random.Random, content: bytes) -> bytes:
    """Changes nodes and constants of an ONNX file and lets shapes and metadata follow, so that other checks pass."""
    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice([1, 1, 2])):
        _change_message(rng, rng.choice([*model.graph.node, *model.graph.node, *model.graph.initializer]), depth=3)
    for tensor in model.graph.initializer:
        size = 4 if tensor.data_type == onnx.TensorProto.FLOAT else 8
        wanted = size * math.prod(tensor.dims)
        if 0 <= wanted <= 1 << 16 and wanted != len(tensor.raw_data):
            tensor.raw_data = rng.randbytes(wanted)
    logits = model.graph.output[0]
    logits.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    try:
        for node in model.graph.node:
            check_operator(node, "")
        model = onnx.shape_inference.infer_shapes(model)
    except (SvitError, onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return bytes(model.SerializeToString())
    for entry in model.metadata_props:
        told = json.loads(entry.value)
        told["output"]["shape"] = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
        entry.value = json.dumps(told)
    return bytes(model.SerializeToString())


def _change_message(rng: random.Random, message: Any, *, depth: int) -> None:
    """Walks down a message at random and changes what it ends at."""
    fields = [field for field, _ in message.ListFields() if field.name not in ("functions", "doc_string")]
    if not fields or rng.random() < 0.05:
        fields = list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    value = getattr(message, field.name)
    if field.is_repeated:
        _change_repeated(rng, field, value, depth=depth)
    elif field.message_type is not None:
        _change_message(rng, value, depth=depth + 1)
    elif rng.random() < 0.1:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(rng, field, value))


def _change_repeated(rng: random.Random, field: Any, values: Any, *, depth: int) -> None:
    kind, is_message = rng.random(), field.message_type is not None
    if not values or kind < 0.05:
        if not is_message:
            values.append(_scalar(rng, field, None))
        elif depth < 6:
            _change_message(rng, values.add(), depth=depth + 1)
        return
    at, other = rng.randrange(len(values)), rng.randrange(len(values))
    if kind < 0.1:
        del values[at]
    elif kind < 0.15 and is_message:
        values.add().CopyFrom(values[at])
    elif kind < 0.2 and is_message:
        values[at].CopyFrom(values[other])
    elif is_message:
        _change_message(rng, values[at], depth=depth + 1)
    else:
        values[at] = rng.choice([values[other], _scalar(rng, field, values[at])])


def _scalar(rng: random.Random, field: Any, old: Any) -> Any:
    if field.enum_type is not None:
        return rng.choice(list(field.enum_type.values_by_number))
    if field.cpp_type == field.CPPTYPE_STRING:
        if field.type == field.TYPE_STRING:
            return rng.choice([word for word in WORDS if word != "\ud800"] + [f"{old}x", str(old)[1:]])
        old = old or b""
        return rng.choice(
            [b"", old[: len(old) // 2], flip(rng, old), rng.randbytes(len(old)), struct.pack("<d", 1e300)]
        )
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return not old
    small = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32)
    near = [(old or 0) + 1, (old or 0) - 1, (old or 0) * 2]
    value = int(rng.choice([*INTEGERS, *near]))
    bound = (1 << 31) - 1 if small else (1 << 63) - 1
    lowest = 0 if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64) else -bound
    return max(lowest, min(bound, value))
