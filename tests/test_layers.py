"""The layers: archiver -> pipelines -> manifests, ray in one module, torch only where the codecs are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARROWS = {"archiver": ("pipelines", "manifests"), "pipelines": ("manifests",), "manifests": ()}
MODULES = [path.relative_to(ROOT) for package in ARROWS for path in sorted((ROOT / package).rglob("*.py"))]
RAY = Path("pipelines/gpu_pool.py")
TORCH = ("torch", "torchvision", "diffusers", "transformers", "safetensors")
EXECUTED = (
    "pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
)  # reading them runs what they hold


def imports(module: Path) -> Iterator[str]:
    """Every import of a file, wherever it stands in it: "ray.util", "manifests.plan"."""
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str() as name, level=0):
                yield name
            case ast.ImportFrom(level=level) if level:
                raise AssertionError(f"{module}:{node.lineno}: relative import; name the package")


def packages(module: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)}


def test_the_packages_are_found() -> None:
    assert {path.parts[0] for path in MODULES} == set(ARROWS)
    assert len(MODULES) > 20


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_down(module: Path) -> None:
    own = module.parts[0]
    above = packages(module) & (ARROWS.keys() | {"tests", "infra"}) - {own, *ARROWS[own]}
    assert not above, f"{module} imports {above}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_heavy_packages_stay_where_they_belong(module: Path) -> None:
    found = packages(module)
    assert "ray" not in found or module == RAY
    assert module.parts[0] == "archiver" or not found & set(TORCH)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_that_is_read_is_executed(module: Path) -> None:
    if not module.is_relative_to("archiver") or module.is_relative_to("archiver/codecs"):
        assert not packages(module) & set(EXECUTED)
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "pickle.load", "pickle.loads"), f"{module}:{node.lineno}"
            assert called != "torch.load" or "weights_only=True" in ast.unparse(node), (
                f"{module}:{node.lineno}"
            )


def test_the_checks_see_imports_inside_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late.py").write_text("def f():\n    import ray.util\n    from torch import nn\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert packages(Path("late.py")) == {"ray", "torch"}
