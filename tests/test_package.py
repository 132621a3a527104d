"""The package as people take it: a wheel and an sdist that hold all that is needed, and metadata that agree."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import recunlearn_jax

ROOT = Path(__file__).parent.parent


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", recunlearn_jax.__version__)
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        assert recunlearn_jax.__version__ in (ROOT / name).read_text(), name


@pytest.mark.slow
def test_wheel_and_sdist(tmp_path):
    """Built by the standard front end, the wheel from the sdist; the wheel alone runs."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,), (sdist,) = (list((tmp_path / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    package = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "recunlearn_jax").rglob("*") if p.suffix in {".py", ".jinja"}
    }
    assert package | {"recunlearn_jax/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "experiments/"))]
    with tarfile.open(sdist) as archive:
        assert {"README.md", "LICENSE", "pyproject.toml"} <= {Path(name).name for name in archive.getnames()}
    code = "import recunlearn_jax, sys; from recunlearn_jax import evidence; print(recunlearn_jax.__file__)"
    where = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=where, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip().startswith(str(tmp_path / "installed"))
