"""The public lists: every name exists and is documented, and none is shadowed by a module."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest

import testbed
import theory


@pytest.mark.parametrize("package", [theory, testbed], ids=lambda p: p.__name__)
def test_every_public_name_is_there_and_documented(package):
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        value = getattr(package, name)
        if callable(value):
            assert (inspect.getdoc(value) or "").strip(), f"{package.__name__}.{name} has no docstring"


@pytest.mark.parametrize("package", [theory, testbed], ids=lambda p: p.__name__)
def test_no_module_bears_the_name_of_a_public_function(package):
    modules = {
        module.name.rsplit(".", 1)[-1] for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
    own = {name for name in package.__all__ if inspect.isfunction(getattr(package, name))}
    at_top = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert own & at_top == set()
    # The control: the walk sees the modules that are there.
    assert {"process", "recursion"} <= modules if package is theory else {"drift", "registry"} <= modules


@pytest.mark.parametrize("package", ["theory", "testbed", "figures"])
def test_importing_a_package_stays_light(package):
    heavy = "torch", "gymnasium", "matplotlib"
    code = f"import sys, {package}; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
    control = subprocess.run(
        [sys.executable, "-c", code.replace(f"import sys, {package}", "import sys, gymnasium")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "gymnasium" in control


def test_modules_of_public_names_need_no_import_of_their_own():
    code = "import testbed; print(callable(testbed.drift.at), callable(testbed.environments.register))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["True", "True"]
    with pytest.raises(AttributeError, match="no attribute 'drifts'"):
        _ = testbed.drifts


def test_theory_imports_nothing_of_the_testbed():
    code = (
        "import pkgutil, sys, theory\nfor m in pkgutil.walk_packages(theory.__path__, 'theory.'): __import__(m.name)\n"
    )
    code += "print([m for m in ('testbed', 'figures', 'torch', 'gymnasium', 'matplotlib') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
