"""The shape of the package: who may import whom, what needs what, and nothing that would run foreign data as code."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import recunlearn_jax
from recunlearn_jax.errors import InputError

PACKAGE = Path(recunlearn_jax.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

# A module imports only from modules before it.
ORDER = (
    "errors",
    "process",
    "files",
    "arrays",
    "accounting",
    "folders",
    "ledger",
    "settings",
    "sealed",
    "manifest",
    "results",
    "verdict",
    "report",
    "evidence",
    "environment",
    "stopwatch",
    "precision",
    "mesh",
    "removed_ids",
    "dataset",
    "item_graph",
    "data",
    "tables",
    "sources",
    "features",
    "preparation",
    "synthetic",
    "graph",
    "in_place",
    "sides",
    "edges",
    "requests",
    "products",
    "propagate",
    "losses",
    "sampling",
    "evaluate",
    "serving",
    "checkpoint",
    "backbones",
    "config",
    "recommender",
    "interop",
    "train",
    "stacked",
    "growth",
    "unlearn",
    "runs",
    "audit",
    "auditing",
    "comparison",
    "stream",
    "commands",
    "cli",
)
# These read and write files of settings and results on machines that have no jax.
WITHOUT_JAX = (
    "errors",
    "process",
    "files",
    "accounting",
    "folders",
    "ledger",
    "settings",
    "sealed",
    "results",
    "verdict",
    "report",
    "evidence",
    "preparation",
)


def part_of(path: Path) -> str:
    """Module or subpackage right below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def package_imports(tree: ast.AST) -> set[str]:
    """Modules and subpackages right below the package that are imported anywhere, in functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.split(".") for name in found if name.split(".")[0] == PACKAGE.name]
    assert all(len(parts) > 1 for parts in ours), "a module imports the whole package"
    return {parts[1] for parts in ours}


def parsed(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text(), name)


def test_every_module_has_its_place():
    assert {part_of(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("name", NAMES)
def test_imports_only_go_down(name):
    own = part_of(PACKAGE / name)
    earlier = set(ORDER[: ORDER.index(own)])
    allowed = earlier | ({own} if (PACKAGE / own).is_dir() else set())
    assert package_imports(parsed(name)) <= allowed


def test_losses_stand_alone():
    assert package_imports(parsed("losses.py")) == set()


def test_the_package_itself_imports_nothing_at_once():
    assert package_imports(parsed("__init__.py")) == set()


FOREIGN_CODE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("name", ["__init__.py", *NAMES])
def test_nothing_runs_foreign_data_as_code(name):
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FOREIGN_CODE
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FOREIGN_CODE
        elif isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert not (isinstance(node.func, ast.Name) and called in {"eval", "exec", "compile", "__import__"})
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle":
                    assert isinstance(keyword.value, ast.Constant)
                    assert keyword.value.value is False


def test_losses_without_flax():
    """And without anything else of the training machinery."""
    absent = ("flax", "optax", "orbax", "jraph", "scipy")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import recunlearn_jax.losses as l; l.bpr"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", WITHOUT_JAX)
def test_without_jax(name):
    """Nor anything that needs it."""
    absent = ("jax", "jaxlib", "flax", "optax", "orbax", "jraph")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import recunlearn_jax.{name}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["report", "--help"]])
def test_help_without_jax(words):
    code = f"import sys; sys.modules['jax'] = None; from recunlearn_jax.cli import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_blocking_a_module_works():
    """What the test above relies on."""
    code = "import sys; sys.modules['flax'] = None; import recunlearn_jax.backbones"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "flax" in done.stderr


def test_public_names():
    """All of them are there, also once every module has been imported: a module must not hide a function of its name."""
    for name in NAMES:
        path = Path(name)
        parts = path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts
        importlib.import_module(".".join((PACKAGE.name, *parts)))
    assert set(dir(recunlearn_jax)) == set(recunlearn_jax.__all__)
    for name in recunlearn_jax.__all__:
        is_module = isinstance(getattr(recunlearn_jax, name), types.ModuleType)
        assert is_module == (name in recunlearn_jax._MODULES), name
    with pytest.raises(AttributeError, match="nothing"):
        _ = recunlearn_jax.nothing


def documented() -> dict[str, Callable[..., object]]:
    """Every function of the API page, and those of the modules that the package hands on."""
    page = (PACKAGE.parent / "docs" / "api.md").read_text()
    found = {}
    for path in re.findall("(?m)^::: (.+)$", page):
        module, _, name = path.rpartition(".")
        thing = getattr(importlib.import_module(module), name, None)
        found[path] = importlib.import_module(path) if thing is None else thing
    found |= {name: importlib.import_module(f"{PACKAGE.name}.{name}") for name in recunlearn_jax._MODULES}
    for path, thing in list(found.items()):
        if isinstance(thing, types.ModuleType):
            own = (f for f in vars(thing).values() if getattr(f, "__module__", None) == thing.__name__)
            found |= {f"{path}.{f.__name__}": f for f in own if not f.__name__.startswith("_")}
    return {path: thing for path, thing in found.items() if isinstance(thing, types.FunctionType)}


def test_a_path_may_be_text():
    """In every function that users call, wherever a path is taken, "runs/model" does as well as Path("runs/model")."""
    found, paths = documented(), 0
    for path, function in found.items():
        for name, kind in inspect.signature(function, eval_str=True).parameters.items():
            told = str(kind.annotation)
            if "pathlib.Path" in told or kind.annotation is Path:
                paths += 1
                assert "str | pathlib.Path" in told, f"{path}: {name} is {told}"
    assert len(found) > 60
    assert paths > 25


def test_a_path_is_checked():
    """What a caller gives for a path goes through `as_path`, and something else is told."""
    for name in NAMES:
        for function in ast.walk(ast.parse((PACKAGE / name).read_text())):
            if isinstance(function, ast.FunctionDef):
                arguments = [*function.args.args, *function.args.kwonlyargs]
                given = {a.arg for a in arguments if a.annotation and "str | Path" in ast.unparse(a.annotation)}
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == "Path":
                        used = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)} & given
                        assert not used or name == "files.py", f"{name}, {function.name}: Path({', '.join(used)})"
    called = 0
    for function in documented().values():
        needed = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.default is p.empty]
        if len(needed) == 1 and "pathlib.Path" in str(needed[0].annotation):
            called += 1
            for odd in (3, None, ["runs/model"], "runs\0model"):
                with pytest.raises(InputError, match=f"^{needed[0].name}: .* given; a path is expected"):
                    function(odd)
    assert called > 5
