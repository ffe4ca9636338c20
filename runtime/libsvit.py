"""The C API of ``runner/svit.h`` as ctypes sees it; what everything means is said there."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Literal

from svitkit.errors import ConfigError


class Tensor(ctypes.Structure):
    """``svit_tensor`` of svit.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("ndim", ctypes.c_size_t),
        ("bytes", ctypes.c_size_t),
    )


class Tap(ctypes.Structure):
    """``svit_tap`` of svit.h."""

    _fields_ = (("name", ctypes.c_char_p), ("tensor", Tensor), ("order", ctypes.POINTER(ctypes.c_int32)))


class FrameShape(ctypes.Structure):
    """``svit_frame_shape`` of svit.h."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in ("frames", "height", "width", "channels", "bytes"))


class DeviceInfo(ctypes.Structure):
    """``svit_device_info`` of svit.h."""

    _fields_ = tuple((name, ctypes.c_char_p) for name in ("api", "type", "name", "driver"))


Layout = Literal["hwc", "chw"]
LAYOUTS: tuple[Layout, ...] = ("hwc", "chw")
"""``svit_layout`` of svit.h, by number."""

TapCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)

_POINTER, _SIZE, _STATUS = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "svit_load": (_STATUS, (ctypes.c_char_p, ctypes.POINTER(_POINTER), ctypes.c_char_p, _SIZE)),
    "svit_free": (None, (_POINTER,)),
    "svit_input": (Tensor, (_POINTER,)),
    "svit_output": (Tensor, (_POINTER,)),
    "svit_device": (DeviceInfo, (_POINTER,)),
    "svit_reset": (_STATUS, (_POINTER,)),
    "svit_step": (_STATUS, (_POINTER, _POINTER, _SIZE, _POINTER, _SIZE)),
    "svit_frame": (FrameShape, (_POINTER,)),
    "svit_step_frame": (_STATUS, (_POINTER, _POINTER, _SIZE, ctypes.c_int, _POINTER, _SIZE)),
    "svit_class_name": (ctypes.c_char_p, (_POINTER, _SIZE)),
    "svit_steps": (_SIZE, (_POINTER,)),
    "svit_max_threads": (_SIZE, (_POINTER,)),
    "svit_set_threads": (_STATUS, (_POINTER, _SIZE)),
    "svit_tap_count": (_SIZE, (_POINTER,)),
    "svit_tap_at": (_STATUS, (_POINTER, _SIZE, ctypes.POINTER(Tap))),
    "svit_set_tap_callback": (_STATUS, (_POINTER, TapCallback, ctypes.c_void_p)),
    "svit_last_error": (ctypes.c_char_p, (_POINTER,)),
}


def load_library(path: Path) -> ctypes.CDLL:
    """Loads a bundle's ``libsvit.so`` and types its functions.

    Raises:
        ConfigError: it is no libsvit for this machine.
    """
    try:
        library = ctypes.CDLL(str(path.resolve()))
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be loaded: {error}. Build the bundle again.") from None
    return library
