"""Folders that the program writes: one process at a time, nothing half written, nothing made by others removed. Imports no jax.

A folder is ours while it contains `.lock`. The lock itself is the operating system's (`filelock`), so it ends with the process, however
that ends; the file may stay.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from recunlearn_jax.errors import InputError
from recunlearn_jax.files import unreadable

LOCK = ".lock"


@contextlib.contextmanager
def working(folder: Path, *marks: str) -> Iterator[Path]:
    """Hold a folder for work that continues from call to call; created if missing, and removed again if nothing came of the work.

    Args:
        folder: to be held.
        marks: names of files, any one of which shows that the folder is ours.

    Raises:
        InputError: at once, if the folder is not ours, cannot be written to, or is held by another process.
    """
    with unreadable(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; a folder is expected")
        if not unclaimed(folder, *marks) and not any((folder / mark).is_file() for mark in (LOCK, *marks)):
            raise InputError(f"{folder}: is not empty and was not made by this program; choose a new folder")
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{folder}: another process is at work in it; wait for its end, or choose another folder"
            ) from None
    try:
        yield folder
    finally:
        if made and folder.is_dir() and unclaimed(folder):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        for parent in made[1:]:
            with contextlib.suppress(OSError):  # it is not empty
                parent.rmdir()


@contextlib.contextmanager
def new(folder: Path) -> Iterator[Path]:
    """A place to write a new folder in: `FOLDER.writing`, which becomes the folder when the work is done, and is removed when it fails.

    What a killed process left there is removed; what others put there is not. The lock goes last, so that the two can be told apart
    whenever the process is killed.

    Raises:
        InputError: at once, if the folder exists, its place cannot be written to, or another process is writing it.
    """
    with unreadable(folder):
        _check_new(folder)
        beside = folder.with_name(folder.name + ".writing")
        if os.path.lexists(beside) and (beside.is_symlink() or not holds_only_ours(beside)):
            raise InputError(f"{beside}: was not made by this program and stands where {folder.name} would be written")
    with working(beside):
        try:
            _check_new(folder)  # another process may just have finished it
            _empty(beside)
            yield beside
            with unreadable(folder):
                beside.rename(folder)
                (folder / LOCK).unlink(missing_ok=True)
        except BaseException:
            with contextlib.suppress(OSError):
                _empty(beside)
            shutil.rmtree(beside, ignore_errors=True)
            raise


def discard(folder: Path) -> None:
    """Remove a folder of ours where work would continue; renamed first, so that a kill leaves none of it under its name."""
    gone = folder.with_name(folder.name + ".removed")
    shutil.rmtree(gone, ignore_errors=True)  # left by a killed process
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _check_new(folder: Path) -> None:
    if os.path.lexists(folder):
        raise InputError(f"{folder}: exists already; choose another folder, so that nothing is overwritten")


def holds_only_ours(folder: Path) -> bool:
    """Whether a folder is empty or marked as the program's own."""
    return folder.is_dir() and ((folder / LOCK).is_file() or not any(folder.iterdir()))


def unclaimed(folder: Path, *allowed: str) -> bool:
    """Whether a folder holds nothing but its lock and the allowed files, half written or not."""
    names = {LOCK, *allowed, *(f"{name}.writing" for name in allowed)}
    return not folder.exists() or all(path.name in names for path in folder.iterdir())


def _empty(folder: Path) -> None:
    """Remove what an earlier process left in a folder of ours."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
