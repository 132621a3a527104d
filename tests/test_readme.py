"""The README is run: its commands and Python blocks from top to bottom in an empty folder; its tables come from committed results."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quick import TRAINING_FLAGS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"<!-- table \S+ -->\n(.*?)<!-- end -->", re.DOTALL)
SAID = re.compile(r"(?<![\w.,-])(?:\d{1,3}(?:,\d{3})+|\d*\.?\d+)(?![\w]|[.,]\d)")
FINDINGS = (
    "claims",
    "evidence",
    "forgetting",
    "forgetting_all",
    "guarantees",
    "limits",
    "paper",
    "performance",
    "speed",
    "streams",
    "unlearning",
    "variations",
)
# Numbers of the pages that no table shows: sizes, settings, a claim of the paper's, and a figure whose result the page says is not kept.
UNSHOWN = {"6,710", "4,480", "90,000", "10,000", "1,000", "5,000", "2,048", "4,883", "49.85"}
ACTIVATE = re.compile(r"^```sh\n(\. \.venv/bin/activate)\n```", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "count"), [("README.md", 4), ("docs/operators.md", 4)])
def test_every_command_and_example_runs(page, count, tmp_path):
    """`bash` and `python` blocks share one folder and run in order, as a reader would; `sh` blocks are not run: the README's are the
    set-up that made this run, those of other pages need what is not here."""
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert len(blocks) == count
    activate = ACTIVATE.search(TEXT)
    assert activate, "the README must say how its commands are found"
    assert activate.start() < TEXT.index("```bash"), "before it uses them"
    # The reader's shell: nothing of this environment is on the path before the README's own line puts it there.
    (tmp_path / ".venv").symlink_to(sys.prefix)
    places = [place for place in os.environ["PATH"].split(os.pathsep) if not Path(place).is_relative_to(sys.prefix)]
    environment = {**os.environ, "PATH": os.pathsep.join(places)}
    # The command line keeps its programs; here the Python blocks find them too.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment |= cache | {"XLA_FLAGS": TRAINING_FLAGS}
    for language, block in blocks:
        run = block if language == "bash" else 'python -c "$BLOCK"'
        command = ["bash", "-eo", "pipefail", "-c", f"{activate[1]}\n{run}"]
        shell = environment | {"BLOCK": block}
        done = subprocess.run(command, cwd=tmp_path, env=shell, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_every_command_is_shown():
    from recunlearn_jax.cli import COMMANDS

    text = TEXT + (ROOT / "docs" / "operators.md").read_text()
    shown = {line.split()[1] for line in text.splitlines() if line.startswith("recunlearn ")}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)\)", prose):
        assert (page.parent / target).exists(), target


def test_tables_are_those_of_the_committed_results(tmp_path):
    """Regenerating the tables changes nothing: no number in the README or in docs was typed by hand."""
    copy = tmp_path / "project"
    for name in ("README.md", "docs", "experiments", "benchmarks"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name)
        elif source.exists():
            copy.mkdir(exist_ok=True)
            shutil.copy(source, copy / name)
    subprocess.run([sys.executable, copy / "experiments" / "tables.py"], check=True)
    for page in PAGES:
        assert (copy / page.relative_to(ROOT)).read_text() == page.read_text(), (
            f"{page.name}: run experiments/tables.py"
        )


@pytest.mark.parametrize("name", FINDINGS)
def test_numbers_in_prose_stand_in_a_table(name):
    """Of the page or of one that it links to, rounded as they are said. Two digits can be found anywhere, so three and more count; a wrong
    number that happens to stand in a large table passes."""
    page = ROOT / "docs" / f"{name}.md"
    text = page.read_text()
    linked = {page.parent / target for target in re.findall(r"\]\(([\w./]+\.md)", text)}
    tables = " ".join(table for each in (page, *linked) for table in TABLE.findall(each.read_text()))
    shown = np.sort([float(number.replace(",", "")) for number in SAID.findall(tables)])
    prose = re.sub(r"^```.*?^```", "", TABLE.sub("", text), flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"\]\([^)]*\)|`[^`]*`|\d{4}\.\d{5}", "", prose)
    unfound = []
    for said in set(SAID.findall(prose)) - UNSHOWN:
        digits = said.replace(",", "")
        if len(digits.replace(".", "").lstrip("0")) < 3 or not set(said) & {".", ","}:
            continue
        half = 0.5 * 10.0 ** -len(digits.partition(".")[2]) + 1e-9
        place = np.searchsorted(shown, float(digits) - half)
        if place == len(shown) or shown[place] > float(digits) + half:
            unfound.append(said)
    assert not unfound


def test_numbers_without_a_table_are_still_said():
    text = " ".join((ROOT / "docs" / f"{name}.md").read_text() for name in FINDINGS)
    assert set(SAID.findall(TABLE.sub("", text))) >= UNSHOWN
