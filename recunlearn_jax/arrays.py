"""Files of arrays: nothing is unpickled, and whatever is wrong with one is told. Imports no jax."""

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from recunlearn_jax.files import regular

# What numpy and the zip reader raise on a damaged file, depending on the byte that is wrong.
DAMAGE = (
    *(ValueError, TypeError, LookupError, ArithmeticError, OSError, EOFError, MemoryError, RuntimeError, SyntaxError),
    *(struct.error, tokenize.TokenError, lzma.LZMAError, zipfile.BadZipFile, zlib.error),
)


def load_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array in an .npy, or name -> array of an .npz.

    Raises:
        ValueError: whatever is wrong with the file.
        InputError: it is missing, or no file.
    """
    regular(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd header that can be read all the same; what it leads to is checked
            content = np.load(file, allow_pickle=False)
            return content if isinstance(content, np.ndarray) else dict(content)
    except DAMAGE as error:
        # Not the error's own text, which recommends to unpickle.
        raise ValueError("unreadable or truncated, or an object array, which would have to be unpickled") from error


def as_float32(array: np.ndarray) -> np.ndarray:
    """The same numbers as float32; what is beyond them becomes inf, which readers refuse."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)
