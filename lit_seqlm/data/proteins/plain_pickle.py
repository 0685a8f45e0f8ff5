"""Pickles of numbers, texts, containers and NumPy arrays, read without running anything that they bring.

`lit_seqlm.hf.pickled` leaves this to torch, whose reader takes nothing but files of `torch.save`.
"""

import io
import pickle
from typing import Any

import numpy as np

KINDS = "biufcUS"  # of NumPy: bool, whole and real and complex numbers, texts. No objects: they are pointers.
ARRAY = "numpy.ndarray"  # a name that cannot be called
CORES = ("numpy.core.", "numpy._core.")  # of NumPy 1 and NumPy 2
BUILTINS = ("builtins", "__builtin__")  # of Python 3 and Python 2
FAULTS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, MemoryError, RecursionError, NotImplementedError,
)  # fmt: skip


class RefusedError(pickle.UnpicklingError):
    """The pickle asks for something else, which was not done."""


def load_plain(pickled: bytes) -> Any:
    """What a pickle holds.

    Every name that it may call is one of `NAMES`, and each stands for a function here that checks what it is given.

    Raises:
        RefusedError: it holds anything else; nothing of it was run.
        pickle.UnpicklingError: it is damaged.
    """
    try:
        found = _Plain(io.BytesIO(pickled)).load()
    except RefusedError:
        raise
    except FAULTS as error:
        told = str(error) or type(error).__name__
        raise pickle.UnpicklingError(f"damaged: {told}") from None
    return _as_arrays(found)


class _Dtype:
    """Stands for a dtype while it is read: that of a plain number or text, in either order of bytes."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.plain = np.dtype(code) if isinstance(code, str) else np.dtype(object)
        if self.plain.kind not in KINDS or self.plain.names is not None:
            raise RefusedError(f"an array of {code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, order, *structure = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in structure[:3]):
            raise RefusedError("an array of structures")
        self.plain = self.plain.newbyteorder("=" if order == "|" else order)


class _Array(np.ndarray):
    """An array that takes its content only as bytes of a plain dtype."""

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, is_fortran, content = state
        if not isinstance(content, bytes) or not isinstance(dtype, _Dtype):
            raise RefusedError("an array of objects")
        plain: Any = (1, shape, dtype.plain, bool(is_fortran), content)
        super().__setstate__(plain)


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """An empty array, which is then given its content."""
    if kind != ARRAY:
        raise RefusedError("a kind of array")
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _scalar(dtype: Any, content: Any = b"") -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
        raise RefusedError("a number that is an object")
    return np.frombuffer(content, dtype.plain, 1)[0]


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """An array of the fifth protocol."""
    if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
        raise RefusedError("an array of objects")
    return np.frombuffer(content, dtype.plain).reshape(shape, order=order).copy(order)


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes, as the oldest protocols write them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("a text in a codec")
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""


NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): ARRAY,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(f"{core}multiarray", "_reconstruct"): _reconstruct for core in CORES},
    **{(f"{core}multiarray", "scalar"): _scalar for core in CORES},
    **{(f"{core}numeric", "_frombuffer"): _from_buffer for core in CORES},
    **{(module, "set"): set for module in BUILTINS},
    **{(module, "frozenset"): frozenset for module in BUILTINS},
    **{(module, "complex"): complex for module in BUILTINS},
    **{(module, "bytes"): _bytes for module in BUILTINS},
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise RefusedError(f"it asks for {module}.{name}")
        return NAMES[module, name]


def _as_arrays(found: Any) -> Any:
    """The same, with NumPy's own arrays on the first two levels; deeper ones stay of a subclass."""
    if isinstance(found, _Array):
        return found.view(np.ndarray)
    if isinstance(found, dict):
        return {
            key: value.view(np.ndarray) if isinstance(value, _Array) else value
            for key, value in found.items()
        }
    return found
