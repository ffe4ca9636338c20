"""Every kind of data from files as they are found in the wild, and every way they can be wrong."""

import gzip
import io
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svitkit.data import load_data
from svitkit.data.cifar10 import CLASS_NAMES, read_batch
from svitkit.data.images import decode_image
from svitkit.data.nmnist import Events, cut_frames
from svitkit.errors import ConfigError

SHARED = Path(__file__).parents[3] / "shared" / "data"
RNG = np.random.default_rng(0)


class Attack:
    """Pickles as a call that writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "ran")


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def npz(path: Path, **changes: Any) -> str:
    arrays: dict[str, Any] = {
        "train_x": pixels(20, 8, 8),
        "train_y": np.arange(20) % 2,
        "test_x": pixels(6, 8, 8),
        "test_y": np.arange(6) % 2,
    }
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return f"npz:{path}"


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def image_files(classes: tuple[str, ...] = ("cat", "dog"), side: int = 8, per_class: int = 3) -> dict[str, bytes]:
    return {
        f"{part}/{label}/{number}.png": png(pixels(side, side, 3))
        for part in ("train", "test")
        for label in classes
        for number in range(per_class)
    }


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: dict[str, bytes], extra: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if extra is not None:
            archive.addfile(extra)
    return path


def cifar_batches(**changes: Any) -> dict[str, bytes]:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files: dict[str, Any] = {
        name: {b"data": pixels(10, 3072), b"labels": list(range(10)), b"batch_label": b"x"} for name in names
    }
    files.update(changes)
    return {f"cifar-10-batches-py/{name}": pickle.dumps(value, protocol=2) for name, value in files.items() if value}


def idx(array: np.ndarray) -> bytes:
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes())


def fashion_files(**changes: bytes) -> dict[str, bytes]:
    files = {
        "train-images-idx3-ubyte.gz": idx(pixels(20, 28, 28)),
        "train-labels-idx1-ubyte.gz": idx((np.arange(20) % 10).astype(np.uint8)),
        "t10k-images-idx3-ubyte.gz": idx(pixels(10, 28, 28)),
        "t10k-labels-idx1-ubyte.gz": idx(np.arange(10).astype(np.uint8)),
    }
    return {**files, **changes}


def event_arrays(recordings: int = 10, events: int = 40) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for part in ("train", "test"):
        total = recordings * events
        arrays[f"{part}_x"] = RNG.integers(0, 34, total).astype(np.uint8)
        arrays[f"{part}_y_pix"] = RNG.integers(0, 34, total).astype(np.uint8)
        arrays[f"{part}_p"] = RNG.integers(0, 2, total).astype(np.uint8)
        arrays[f"{part}_t"] = np.tile(np.arange(events) * 1000, recordings).astype(np.uint32)
        arrays[f"{part}_offsets"] = np.arange(recordings + 1) * events
        arrays[f"{part}_label"] = (np.arange(recordings) % 10).astype(np.uint8)
    return arrays


def test_an_unknown_kind_brings_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'fashion-mnist'"):
        load_data("fashon-mnist:x")


@pytest.mark.parametrize("kind", ["npz", "imagefolder", "cifar10", "fashion-mnist", "nmnist"])
def test_every_kind_with_files_needs_a_path_that_exists(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need a path"):
        load_data(kind)
    with pytest.raises(ConfigError, match="nowhere"):
        load_data(f"{kind}:{tmp_path / 'nowhere'}")


def test_digits_take_no_path() -> None:
    with pytest.raises(ConfigError, match="take no path"):
        load_data("digits:here")


@pytest.mark.parametrize(("inner", "shape"), [((8, 8), (1, 8, 8)), ((3, 8, 6), (3, 8, 6))])
def test_images_of_an_npz_file_are_split_by_class(
    tmp_path: Path, inner: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    data = load_data(npz(tmp_path / "my.npz", train_x=pixels(20, *inner), test_x=pixels(6, *inner)))
    assert (data.name, data.shape, data.static) == ("my", shape, True)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)
    assert sorted(data.validation.y) == [0, 1]
    assert data.class_names == ("0", "1")


def test_recordings_of_an_npz_file_keep_their_frames(tmp_path: Path) -> None:
    data = load_data(npz(tmp_path / "my.npz", train_x=pixels(20, 4, 2, 8, 8), test_x=pixels(6, 4, 2, 8, 8)))
    assert (data.static, data.shape, data.test.x.shape) == (False, (2, 8, 8), (6, 4, 2, 8, 8))
    assert data.normalization.std == (1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_y": None}, "lacks the arrays test_y"),
        ({"train_x": pixels(20, 8, 8).astype(np.float32)}, "float32, wanted uint8"),
        ({"train_x": pixels(20, 8)}, r"shape \(20, 8\)"),
        ({"train_x": pixels(20, 8, 8, 3)}, "channels must come before"),
        ({"train_x": pixels(19, 8, 8)}, "19 samples and 20 labels"),
        ({"test_x": pixels(6, 9, 9)}, "differ|training samples have shape"),
        ({"train_y": np.arange(20) % 2 - 1}, "label -1 is out of range"),
        ({"test_y": np.full(6, 2)}, "no training sample has label 2"),
        ({"test_y": np.full(6, 10**9)}, "out of range"),
        ({"train_y": np.ones(20)}, "wanted .* integers"),
        ({"train_y": np.ones((20, 2), int)}, "wanted .* integers"),
        ({"test_x": pixels(0, 8, 8), "test_y": np.arange(0)}, "0 samples"),
        ({"train_y": np.array([{}] * 20, dtype=object)}, "plain arrays"),
    ],
)
def test_arrays_of_an_npz_file_that_are_wrong_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_data(npz(tmp_path / "my.npz", **changes))


def test_a_cut_off_npz_file_is_refused(tmp_path: Path) -> None:
    npz(tmp_path / "my.npz")
    content = (tmp_path / "my.npz").read_bytes()
    for keep in (0, 10, len(content) // 2):
        (tmp_path / "my.npz").write_bytes(content[:keep])
        with pytest.raises(ConfigError, match=r"no whole \.npz"):
            load_data(f"npz:{tmp_path / 'my.npz'}")


def test_a_damaged_array_inside_a_whole_npz_file_is_refused(tmp_path: Path) -> None:
    npz(tmp_path / "my.npz")
    content = bytearray((tmp_path / "my.npz").read_bytes())
    content[400:500] = bytes(255 - value for value in content[400:500])
    (tmp_path / "my.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"no whole \.npz"):
        load_data(f"npz:{tmp_path / 'my.npz'}")


def test_folders_of_images_become_classes(tmp_path: Path) -> None:
    files = image_files()
    files["train/cat/notes.txt"] = b"not an image"
    data = load_data(f"imagefolder:{write_files(tmp_path / 'pets', files)}")
    assert (data.name, data.class_names, data.shape) == ("pets", ("cat", "dog"), (3, 8, 8))
    first = np.asarray(Image.open(io.BytesIO(files["test/dog/0.png"]))).transpose(2, 0, 1)
    assert np.array_equal(data.test.x[3], first)
    assert data.test.y.tolist() == [0, 0, 0, 1, 1, 1]


def test_grey_images_have_one_channel_and_mixed_ones_three(tmp_path: Path) -> None:
    grey = {name: png(pixels(8, 8)) for name in image_files()}
    assert load_data(f"imagefolder:{write_files(tmp_path / 'grey', grey)}").shape == (1, 8, 8)
    mixed = {**grey, "train/cat/0.png": png(pixels(8, 8, 3))}
    assert load_data(f"imagefolder:{write_files(tmp_path / 'mixed', mixed)}").shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: [files.pop(name) for name in list(files) if name.startswith("test")], "no image test/"),
        (lambda files: files.update({"test/fox/0.png": png(pixels(8, 8, 3))}), "'fox' has no training images"),
        (lambda files: [files.pop(name) for name in list(files) if "dog" in name], "only class 'cat'"),
        (
            lambda files: files.update({"train/cat/9.png": png(pixels(9, 8, 3))}),
            r"differ in size, \(8, 8\) and \(9, 8\)",
        ),
        (lambda files: files.update({"train/cat/9.jpg": b"no image"}), "'train/cat/9.jpg' is no whole PNG or JPEG"),
        (lambda files: files.update({"train/cat/9.png": files["train/cat/0.png"][:80]}), "is no whole PNG or JPEG"),
    ],
)
def test_folders_of_images_that_are_wrong_are_refused(
    tmp_path: Path, change: Callable[[dict[str, bytes]], Any], says: str
) -> None:
    files = image_files()
    change(files)
    with pytest.raises(ConfigError, match=says):
        load_data(f"imagefolder:{write_files(tmp_path / 'pets', files)}")


def test_an_image_that_unpacks_to_too_many_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="5000x5000 pixels"):
        decode_image(png(np.zeros((5000, 5000), np.uint8)), "bomb.png")


@pytest.mark.parametrize("packed", [True, False])
def test_the_published_cifar10_batches_are_read(tmp_path: Path, packed: bool) -> None:
    files = cifar_batches()
    path = write_tar(tmp_path / "c.tar.gz", files) if packed else write_files(tmp_path / "c", files)
    data = load_data(f"cifar10:{path}")
    assert (data.name, data.class_names, data.shape) == ("CIFAR-10", CLASS_NAMES, (3, 32, 32))
    assert (len(data.train) + len(data.validation), len(data.test)) == (50, 10)
    batch = pickle.loads(files["cifar-10-batches-py/test_batch"])
    assert np.array_equal(data.test.x[4], batch[b"data"][4].reshape(3, 32, 32))


@pytest.mark.parametrize("packed", [True, False])
def test_the_jpeg_copy_of_cifar10_is_called_by_its_name(tmp_path: Path, packed: bool) -> None:
    files = image_files(CLASS_NAMES, side=32, per_class=1)
    path = write_tar(tmp_path / "c.tar.xz", files) if packed else write_files(tmp_path / "c", files)
    data = load_data(f"cifar10:{path}")
    assert data.name == "CIFAR-10 (JPEG copy)"
    assert data.test.y.tolist() == list(range(10))


def test_a_cifar10_batch_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    files = cifar_batches(data_batch_3=Attack(tmp_path / "ran"))
    with pytest.raises(ConfigError, match="it asks for"):
        load_data(f"cifar10:{write_files(tmp_path / 'c', files)}")
    assert not (tmp_path / "ran").exists()
    pickle.loads(files["cifar-10-batches-py/data_batch_3"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({b"data": pixels(2, 100), b"labels": [0, 1]}, r"shape \(2, 100\)"),
        ({b"data": pixels(2, 3072)}, "labels"),
        ({b"data": [np.datetime64("2020")], b"labels": [0]}, "it asks for numpy"),
        ([1, 2], "no CIFAR-10 batch"),
    ],
)
def test_batches_that_are_wrong_are_refused(batch: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_batch(pickle.dumps(batch, protocol=2), "batch")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data_batch_2": None}, "lacks the CIFAR-10 batch 'data_batch_2'"),
        ({"test_batch": {b"data": pixels(1, 3072), b"labels": [10]}}, "label 10 is out of range"),
    ],
)
def test_incomplete_cifar10_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_data(f"cifar10:{write_tar(tmp_path / 'c.tar.gz', cifar_batches(**changes))}")


def test_other_images_are_not_taken_for_cifar10(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="imagefolder:PATH"):
        load_data(f"cifar10:{write_files(tmp_path / 'c', image_files())}")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_an_archive_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("cifar-10-batches-py/extra")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(ConfigError, match="link or a device"):
        load_data(f"cifar10:{write_tar(tmp_path / 'c.tar.gz', cifar_batches(), member)}")


@pytest.mark.parametrize("name", ["../outside", "/absolute"])
def test_paths_that_lead_out_of_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="leads out"):
        load_data(f"cifar10:{write_tar(tmp_path / 'c.tar.gz', {name: b'x'})}")


def test_a_member_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too large"):
        load_data(f"cifar10:{write_tar(tmp_path / 'c.tar.gz', {'test_batch': bytes((64 << 20) + 1)})}")


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.xz"])
def test_a_cut_off_archive_is_refused(tmp_path: Path, ending: str) -> None:
    path = write_tar(tmp_path / f"c{ending}", cifar_batches())
    content = path.read_bytes()
    for keep in (0, 20, len(content) // 2):
        path.write_bytes(content[:keep])
        with pytest.raises(ConfigError, match="no whole tar archive"):
            load_data(f"cifar10:{path}")


def test_fashion_mnist_is_the_same_from_both_forms(tmp_path: Path) -> None:
    files = fashion_files()
    folder = load_data(f"fashion-mnist:{write_files(tmp_path / 'f', files)}")
    raw = [np.frombuffer(gzip.decompress(content), np.uint8) for content in files.values()]
    npz(
        tmp_path / "f.npz",
        train_x=raw[0][16:].reshape(20, 28, 28),
        train_y=raw[1][8:],
        test_x=raw[2][16:].reshape(10, 28, 28),
        test_y=raw[3][8:],
    )
    single = load_data(f"fashion-mnist:{tmp_path / 'f.npz'}")
    assert (folder.name, folder.shape, folder.class_names[9]) == ("Fashion-MNIST", (1, 28, 28), "ankle boot")
    assert np.array_equal(folder.train.x, single.train.x)
    assert np.array_equal(folder.test.y, single.test.y)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot read|no IDX"),
        (b"no gzip", "cannot read"),
        (idx(pixels(10, 28, 28))[:500], "cannot read"),
        (gzip.compress(b"\0\0\x0d\x03"), "no IDX file of bytes"),
        (gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 10, 28, 28) + bytes(9)), "announces 7840 bytes"),
        (gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 9)), "announces"),
        (idx(pixels(10, 27, 28)), "differ|training samples have shape"),
    ],
    ids=["empty", "no gzip", "cut off", "no bytes", "too short", "too large", "wrong shape"],  # gzip writes the time
)
def test_published_files_of_fashion_mnist_that_are_wrong_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    files = fashion_files(**{"t10k-images-idx3-ubyte.gz": content})
    with pytest.raises(ConfigError, match=says):
        load_data(f"fashion-mnist:{write_files(tmp_path, files)}")


def test_events_are_counted_per_slice_polarity_and_pixel() -> None:
    row = {"x": [3, 3, 5, 0], "y": [7, 7, 1, 0], "p": [1, 1, 0, 1], "t": [1000, 1001, 1099, 1050]}
    frames = cut_frames(Events(**{name: np.array(values) for name, values in row.items()}), 4, "recording")
    assert frames.shape == (4, 2, 34, 34)
    assert frames.sum() == 4
    assert frames[0, 1, 7, 3] == 2
    assert frames[2, 1, 0, 0] == 1
    assert frames[3, 0, 1, 5] == 1


def test_counts_end_at_255_and_no_event_gives_empty_frames() -> None:
    zeros = np.zeros(300, int)
    assert cut_frames(Events(x=zeros, y=zeros, p=zeros, t=zeros), 2, "r").max() == 255
    assert cut_frames(Events(x=zeros[:0], y=zeros[:0], p=zeros[:0], t=zeros[:0]), 2, "r").sum() == 0


def test_both_forms_of_nmnist_give_the_same_frames(tmp_path: Path) -> None:
    arrays = event_arrays()
    np.savez(tmp_path / "n.npz", **arrays)
    single = load_data(f"nmnist:{tmp_path / 'n.npz'}", timesteps=5)
    assert (single.static, single.shape, single.test.x.shape) == (False, (2, 34, 34), (10, 5, 2, 34, 34))
    assert single.test.x.sum() == 400
    files = {}
    for part in ("train", "test"):
        for index in range(10):
            window = slice(40 * index, 40 * index + 40)
            x, y, p, t = (arrays[f"{part}_{name}"][window].astype(int) for name in ("x", "y_pix", "p", "t"))
            rows = np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1).astype(np.uint8)
            files[f"{part.title()}/{index}/00001.bin"] = rows.tobytes()
    folder = load_data(f"nmnist:{write_files(tmp_path / 'n', files)}", timesteps=5)
    assert np.array_equal(folder.test.x, single.test.x)
    assert np.array_equal(folder.test.y, single.test.y)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("train_p"), "lacks the arrays train_p"),
        (lambda a: a["train_x"].__setitem__(5, 34), "event has x 34"),
        (lambda a: a["test_p"].__setitem__(5, 2), "event has polarity 2"),
        (lambda a: a["test_label"].__setitem__(0, 10), "label 10 is out of range"),
        (lambda a: a["train_offsets"].__setitem__(-1, 9999), "do not go together"),
        (lambda a: a["train_offsets"].__setitem__(3, 0), "do not go together"),
        (lambda a: a.update(train_label=a["train_label"][:-1]), "do not go together"),
        (lambda a: a.update(train_t=a["train_t"][:-1]), "do not go together"),
        (lambda a: a.update(train_t=a["train_t"] * 1.5), "wanted a row of integers"),
        (lambda a: a.update(train_offsets=np.zeros(0, int)), "do not go together"),
        (
            lambda a: a.update(train_t=a["train_t"].astype(np.int64) * -(1 << 40)),
            "the events lie .* microseconds apart",
        ),
        (lambda a: a.update(train_t=a["train_t"].astype(np.uint64) << np.uint64(50)), "microseconds apart"),
    ],
)
def test_event_files_that_are_wrong_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    arrays = event_arrays()
    change(arrays)
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(ConfigError, match=says):
        load_data(f"nmnist:{tmp_path / 'n.npz'}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no array", "'train_y' is no array"),
        (b"\x93NUMPY\x01\x00\x06\x00{'a':(", "no whole .npz file of plain arrays"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "no whole .npz file of plain arrays"),
    ],
)
def test_an_array_that_is_none_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    source = npz(tmp_path / "d.npz", train_y=None)
    with zipfile.ZipFile(tmp_path / "d.npz", "a") as archive:
        archive.writestr("train_y.npy", content)
    with pytest.raises(ConfigError, match=says):
        load_data(source)


def test_a_batch_that_numbers_billions_of_objects_takes_no_memory_for_them() -> None:
    numbered = pickle.PROTO + b"\x02" + pickle.NONE + pickle.LONG_BINPUT + struct.pack("<I", 1 << 29) + pickle.STOP
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="no CIFAR-10 batch"):
            read_batch(numbered, "a batch")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"1234567"])
def test_a_recording_that_is_cut_off_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="multiple of 5"):
        load_data(f"nmnist:{write_files(tmp_path, {'Train/3/1.bin': content})}")


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recording Train"):
        load_data(f"nmnist:{tmp_path}")


@pytest.mark.skipif(not (SHARED / "fashion_mnist.npz").exists(), reason="the real data are not at hand")
def test_the_real_fashion_mnist_is_complete() -> None:
    data = load_data(f"fashion-mnist:{SHARED / 'fashion_mnist.npz'}")
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert np.bincount(data.validation.y).tolist() == [600] * 10


@pytest.mark.skipif(not (SHARED / "nmnist_small_events.npz").exists(), reason="the real data are not at hand")
def test_the_real_nmnist_recordings_fill_every_frame() -> None:
    data = load_data(f"nmnist:{SHARED / 'nmnist_small_events.npz'}", timesteps=4)
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 100, 100)
    assert (data.test.x.sum(axis=(2, 3, 4)) > 100).all()
    assert data.test.x.sum() == 385_596


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "cifar10_jpeg_files.tar.xz").exists(), reason="the real data are not at hand")
def test_the_real_jpeg_copy_of_cifar10_is_complete() -> None:
    data = load_data(f"cifar10:{SHARED / 'cifar10_jpeg_files.tar.xz'}")
    assert data.name == "CIFAR-10 (JPEG copy)"
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    assert np.allclose(data.normalization.mean, (0.491, 0.482, 0.446), atol=0.003)
