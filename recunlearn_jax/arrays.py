"""Arrays on the host and the files that hold them: nothing is unpickled, and any defect of a file is reported. Imports no jax."""

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
    """The array in an .npy file, or name -> array of an .npz file.

    Raises:
        ValueError: something is wrong with the file.
        InputError: it is missing, or not a file.
    """
    regular(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd header that can still be read; the result is checked
            content = np.load(file, allow_pickle=False)
            return content if isinstance(content, np.ndarray) else dict(content)
    except DAMAGE as error:
        # Not the error's own text, which recommends unpickling.
        raise ValueError("unreadable or truncated, or an object array, which would have to be unpickled") from error


def as_float32(array: np.ndarray) -> np.ndarray:
    """The same numbers as float32; values beyond its range become inf, which readers refuse."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers from each start to just before its end, one range after the other, int64.

    Examples:
        >>> ranges(np.array([3, 9]), np.array([5, 10])).tolist()
        [3, 4, 9]
    """
    counts = ends - starts
    return np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)


def distinct(values: np.ndarray) -> np.ndarray:
    """Each number once, ascending. WHY not numpy's: it hashes, which for a hundred thousand numbers takes ten times as long as sorting.

    Args:
        values: int [n].

    Examples:
        >>> distinct(np.array([5, 2, 5])).tolist()
        [2, 5]
    """
    values = np.sort(values)
    return values[np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]]


def power_of_two(count: int) -> int:
    """The smallest power of two not less than `count`, at least 1: arrays of similar length, padded to it, share compiled programs.

    Examples:
        >>> power_of_two(5), power_of_two(8), power_of_two(0)
        (8, 8, 1)
    """
    return 1 << max(count - 1, 0).bit_length()
