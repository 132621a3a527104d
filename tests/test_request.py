"""The life of a request, from the command line to the gradient, as docs/request.md tells it: whom it is handed to, in which order."""

import contextlib
import io
import sys
from pathlib import Path

import pytest

import recunlearn_jax
from recunlearn_jax.cli import main
from recunlearn_jax.data import write_dataset

pytestmark = pytest.mark.slow

PACKAGE = Path(recunlearn_jax.__file__).parent
FORMS = {"Unlearn", "Request", "ForgetSet", "Problem"}  # and words before the first, pairs after the last


def form_of(frame) -> str | None:
    """The form in which a call is handed the request."""
    code = frame.f_code
    if code.co_filename.endswith("gradients.py") and code.co_name == "gradient_after":
        return "pairs"
    for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        kind = type(frame.f_locals.get(name)).__name__
        if kind in FORMS:
            return kind
        if name == "words" and code.co_filename.endswith("requests.py"):
            return name
    return None


def followed(words) -> list[str]:
    """Modules that a request is handed to, in order, until a gradient is computed; several calls in a row in one module are one stay."""
    stays, done = [], []

    def see(frame, event, argument):
        path = frame.f_code.co_filename
        if event != "call" or done or not path.startswith(str(PACKAGE)) or frame.f_code.co_name.startswith("<"):
            return
        form, module = form_of(frame), str(Path(path).relative_to(PACKAGE))
        if form and (not stays or stays[-1] != module):
            stays.append(module)
        if form == "pairs":
            done.append(module)

    sys.setprofile(see)
    try:
        assert main(words) == 0
    finally:
        sys.setprofile(None)
    return stays


def test_a_request_goes_down_and_hardly_ever_back(shop, tmp_path):
    write_dataset(shop, tmp_path / "shop")
    with contextlib.redirect_stdout(io.StringIO()):
        settings = ["--set", "train.max_epochs=1"]
        main(["train", "--data", str(tmp_path / "shop"), "--out", str(tmp_path / "run"), *settings])
        stays = followed(["unlearn", str(tmp_path / "run"), "users:3,4", "--out", str(tmp_path / "out")])
    back = [module for i, module in enumerate(stays) if module in stays[:i]]
    assert (len(stays), len(set(stays))) == (6, 5)  # as the page says
    assert stays[0] == "commands/making.py"
    assert stays[-1] == "unlearn/gradients.py"
    assert back == ["requests.py"]  # once read, and once to say what is retained
    page = (PACKAGE.parent / "docs" / "request.md").read_text()
    assert all(f"`{module}`" in page for module in stays)
