"""Imports point one way, so that every folder can be read and tested without those above it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "digit_search"
FOUNDATION = {
    "errors",
    "intervals",
    "records",
    "space",
    "config",
    "run_folder",
    "whole_files",
    "events",
    "history",
    "untrusted",
    "checkpoints",
    "remote",
}
MAY_IMPORT = {
    "errors": set(),
    "intervals": set(),
    "records": {"errors"},
    "space": {"records"},
    "untrusted": {"limits"},
    "setting_problems": set(),
    "config": {"errors", "records", "space", "setting_problems", "untrusted"},
    "whole_files": {"errors"},
    "run_folder": {"errors", "whole_files"},
    "remote": {"errors"},
    "checkpoints": {"errors", "remote", "run_folder", "untrusted", "whole_files"},
    "remote_lock": {"errors", "remote", "untrusted"},
    "mirror": {"errors", "remote", "run_folder", "untrusted"},
    "remote_run": {"errors", "config", "checkpoints", "history", "mirror", "remote", "remote_lock", "run_folder", "whole_files"},
    "runs": {"remote", "remote_run", "run_folder"},
    "events": {"errors", "records", "untrusted"},
    "history": {"errors", "events", "records", "space"},
    "interrupts": set(),
    "limits": set(),
    "environment": {"__version__", "errors", "records", "space", "config", "data", "limits", "untrusted"},
    "warm_start": {"errors", "records", "space", "config", "run_folder", "runs", "history", "environment"},
    "data": FOUNDATION,
    "training": FOUNDATION | {"data"},
    "search": FOUNDATION | {"data", "training", "environment", "limits"},
    "doctor": FOUNDATION | {"data", "training", "search", "limits", "remote"},
    "report": FOUNDATION,
}
OPTUNAS_IMPORTANCE = PACKAGE / "report" / "importance.py"
"""Computes over the report's own records what Optuna computes over a study."""
FORBIDDEN_LIBRARIES = {
    "data": {"torch", "ray", "optuna"},
    "training": {"ray", "optuna"},
    "report": {"torch", "ray"},
    "doctor": {"ray", "optuna"},
}


def imports(path: Path) -> set[str]:
    """Dotted names of everything imported, wherever it stands in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(layer: str) -> list[Path]:
    folder = PACKAGE / layer
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{layer}.py"]


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_lies_below_it(layer):
    for path in modules(layer):
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("digit_search.")}
        assert ours <= MAY_IMPORT[layer] | {layer}, path


@pytest.mark.parametrize("layer", FORBIDDEN_LIBRARIES)
def test_a_layer_knows_no_library_that_is_not_its_business(layer):
    for path in modules(layer):
        libraries = {name.split(".")[0] for name in imports(path)}
        assert not libraries & FORBIDDEN_LIBRARIES[layer], path


def test_only_the_search_knows_ray_and_optuna():
    for path in PACKAGE.rglob("*.py"):
        if "search" not in path.relative_to(PACKAGE).parts and path.stem not in ("searching",):
            foreign = {"ray"} if path == OPTUNAS_IMPORTANCE else {"ray", "optuna"}
            assert not foreign & {name.split(".")[0] for name in imports(path)}, path
