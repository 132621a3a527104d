"""The site is built as `make docs` builds it, its pages to run are run, and nothing in it is loaded from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from recunlearn_jax.audit import CHECKS

ROOT = Path(__file__).parent.parent
HTML = ROOT / "runs" / "site" / "html" / "docs"
NAMED = (ROOT / "mkdocs.yml").read_text()


@pytest.fixture(scope="module")
def site():
    """Built without a warning: every link leads somewhere, the reference finds every name, and no cell of a page to run fails."""
    ready = f"{sys.prefix}/ready"
    command = ["make", f"VENV={sys.prefix}", "-o", ready, "docs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return HTML


def test_every_page_has_its_place():
    for page in sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.py")]):
        assert page.relative_to(ROOT).as_posix() in NAMED, page
    assert {page.stem for page in (ROOT / "docs" / "checks").iterdir()} == set(CHECKS)


@pytest.mark.slow
def test_the_reference_finds_its_names(site):
    assert 'id="recunlearn_jax.unlearn.driver.answer"' in (site / "api" / "index.html").read_text()


@pytest.mark.slow
def test_pages_to_run_show_what_they_gave(site):
    shown = {page.parent.name: page.read_text() for page in site.glob("notebooks/*/index.html")}
    assert set(shown) == {page.stem for page in (ROOT / "docs" / "notebooks").glob("*.py")}
    for name, text in shown.items():
        assert text.count('class="jp-OutputArea-child') >= 2, name
    assert "image/png" in shown["train_and_forget"]  # the picture


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site):
    for page in (site / "api" / "index.html", site / "notebooks" / "train_and_forget" / "index.html"):
        assert not re.findall(r'(?:src|href)="https?://(?!arxiv|github)[^"]*\.(?:js|css|woff2?)"', page.read_text())
