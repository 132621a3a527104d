"""Folders that the program writes: one process at a time, nothing half written, nothing of others touched."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from recunlearn_jax import folders
from recunlearn_jax.errors import InputError, readable
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.folders import LOCK

CONTEXT = multiprocessing.get_context("forkserver")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_new_folder_appears_whole(tmp_path):
    with folders.new(tmp_path / "deep" / "made") as beside:
        (beside / "file").write_text("x")
        assert not (tmp_path / "deep" / "made").exists()
    assert tree(tmp_path) == {"deep/made/file": b"x"}


def failing(held):
    with held as folder:
        (folder / ("file" if folder.name.endswith(".writing") else LOCK)).write_text("x")
        raise ZeroDivisionError


def test_what_fails_leaves_nothing(tmp_path):
    for held in (folders.new(tmp_path / "made"), folders.working(tmp_path / "run")):
        with pytest.raises(ZeroDivisionError):
            failing(held)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["made", "made.writing"])
@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling link"])
def test_nothing_of_others_is_touched(tmp_path, name, kind):
    """Whatever stands where the folder, or what is written first, would stand."""
    path, other = tmp_path / name, tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("mine")
    match kind:
        case "folder":
            path.mkdir()
            (path / "mine").write_text("mine")
        case "file":
            path.write_text("mine")
        case "link":
            path.symlink_to(other)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"exists already|not made by this program"), folders.new(tmp_path / "made"):
        raise AssertionError("work began")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("content", ["mine", "model/x", "log.jsonl"])
def test_a_folder_of_others_is_not_worked_in(tmp_path, content):
    run = tmp_path / "run"
    (run / content).parent.mkdir(parents=True)
    (run / content).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="was not made by this program"), folders.working(run, "manifest.json"):
        raise AssertionError("work began")
    assert tree(tmp_path) == before


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    """At whichever place it was cut off: before the first file, within it, or later."""
    for left in ((), (LOCK,), (LOCK, "manifest.json.writing"), ("manifest.json.writing",), ("manifest.json", "model")):
        run = tmp_path / f"run-{len(left)}-{'-'.join(left)}"
        run.mkdir()
        for name in left:
            (run / name).touch()
        with folders.working(run, "manifest.json"):
            pass
    (tmp_path / "made.writing" / "data").mkdir(parents=True)
    (tmp_path / "made.writing" / LOCK).touch()
    (tmp_path / "made.writing" / "data" / "half").write_text("x")
    with folders.new(tmp_path / "made") as beside:
        assert [path.name for path in beside.iterdir()] == [LOCK]
    assert not list((tmp_path / "made").iterdir())


def hold(folder, ready, how):
    with folders.new(folder) if how == "new" else folders.working(folder):
        ready.set()
        signal.pause()


@pytest.mark.parametrize("how", ["new", "working"])
def test_a_second_process_is_told_at_once_and_a_kill_ends_the_lock(tmp_path, how):
    ready = CONTEXT.Event()
    process = CONTEXT.Process(target=hold, args=(tmp_path / "made", ready, how))
    process.start()
    assert ready.wait(60)
    again = folders.new if how == "new" else folders.working
    with pytest.raises(InputError, match="another process is at work in it"), again(tmp_path / "made"):
        raise AssertionError("work began")
    process.kill()
    process.join()
    with again(tmp_path / "made"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_place_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    for hold_it in (folders.new, folders.working):
        with pytest.raises(InputError, match="Permission denied"), hold_it(tmp_path / "made"):
            raise AssertionError("work began")


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    for hold_it in (folders.new, folders.working):
        with pytest.raises(InputError, match=r"Not a directory|File exists"), hold_it(tmp_path / "file" / "made"):
            raise AssertionError("work began")
    with pytest.raises(InputError, match="is a file; a folder is expected"), folders.working(tmp_path / "file"):
        raise AssertionError("work began")
    with pytest.raises(InputError, match=r"Not a directory|File exists|cannot be"):
        write_json(tmp_path / "file" / "x.json", {})


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name, rule in (("pipe.json", "no regular file"), ("folder.json", "is a folder"), ("none.json", "no such file")):
        with pytest.raises(InputError, match=rule):
            read_json(tmp_path / name)
    for text, rule in (("{", "not valid JSON"), ("[" * 100_000, "too deep"), ("9" * 5000, "not valid JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=rule):
            read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b'"\xff"')
    with pytest.raises(InputError, match="byte 1 is no UTF-8 text"):
        read_json(tmp_path / "x.json")


def test_messages_are_one_readable_line():
    message = str(InputError("a\nb\x1b[31m\u202e" + "c" * 5000 + "end"))
    assert message.startswith(r"a\nb\x1b[31m\u202eccc")
    assert message.endswith("cccend")
    assert len(message) <= 600
    assert readable("ünï → ✓") == "ünï → ✓"
