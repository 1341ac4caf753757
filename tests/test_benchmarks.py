"""The benchmarks are not run here, but their imports must work: they use many names of the package."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_benchmark_imports_only_names_that_exist(name, monkeypatch):
    # As `python benchmarks/NAME.py` sets it.
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    importlib.import_module(name)
