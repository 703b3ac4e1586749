"""Is everything public where it should be, and is importing the package cheap?"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import jaxdarts

ROOT = Path(__file__).parents[1]
# python -m would import these twice if the package did
COMMANDS = ("search", "evaluate", "sweep", "report", "tabulate", "regret")


def _type_checking_imports() -> dict[str, str]:
    tree = ast.parse(Path(jaxdarts.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: statement.module.removeprefix("jaxdarts.")
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module not in (None, "jaxdarts")
        for alias in statement.names
    }


def test_the_lists_of_names_agree() -> None:
    assert jaxdarts.__all__ == sorted(set(jaxdarts.__all__))
    assert jaxdarts.__all__ == sorted([*jaxdarts._MODULES, *jaxdarts._NAMESPACES])
    assert _type_checking_imports() == jaxdarts._MODULES


@pytest.mark.parametrize("name", jaxdarts._NAMESPACES)
def test_a_namespace_is_a_package_that_says_what_is_in_it(name: str) -> None:
    namespace = getattr(jaxdarts, name)
    assert namespace is importlib.import_module(f"jaxdarts.{name}")
    assert name in dir(jaxdarts) and namespace.__doc__
    for public in namespace.__all__:
        value = getattr(namespace, public)
        assert value.__doc__ or not (inspect.isclass(value) or inspect.isfunction(value)), public


@pytest.mark.parametrize("name", sorted(jaxdarts._MODULES))
def test_a_public_name_is_its_modules_own(name: str) -> None:
    module = importlib.import_module(f"jaxdarts.{jaxdarts._MODULES[name]}")
    value = getattr(jaxdarts, name)
    assert value is getattr(module, name)
    assert name in dir(jaxdarts)
    if callable(value):
        assert value.__doc__, f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = jaxdarts.no_such_thing


def test_no_public_name_hides_a_command() -> None:
    assert not set(COMMANDS) & set(jaxdarts.__all__)


@pytest.mark.parametrize("module", ["jaxdarts", "jaxdarts.spaces", *(f"jaxdarts.{name}" for name in COMMANDS)])
def test_importing_loads_neither_jax_nor_matplotlib(module: str) -> None:
    check = f"import sys, {module}; print([name for name in ('jax', 'flax', 'matplotlib') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_version_is_the_one_to_cite() -> None:
    assert f"version: {jaxdarts.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{jaxdarts.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_files_that_are_not_python_are_in_the_package() -> None:
    package = Path(jaxdarts.__file__).parent
    assert (package / "py.typed").exists() and (package / "reports" / "report_template.html").exists()
