"""Do imports run one way, and does each layer know only what is its own? See CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import jaxdarts
from jaxdarts.methods import METHODS
from jaxdarts.nasbench201.baselines import BASELINES
from jaxdarts.spaces import SPACES

PACKAGE = Path(jaxdarts.__file__).parent
# Modules that serve every package, and import none.
BASE = {
    "checks",
    "errors",
    "json_files",
    "keys",
    "paths",
    "precision",
    "recorded",
    "settings",
    "sharding",
    "sizes",
    "values",
}
# What each package, and each module beside them, may import beside itself and the base.
MAY_IMPORT: dict[str, set[str]] = {
    "spaces": set(),
    "networks": {"spaces"},
    "bilevel": set(),
    "curvature": set(),
    "data": set(),
    "nasbench201": {"spaces"},
    "forms": {"spaces"},
    "interop": {"spaces", "networks"},
}
MAY_IMPORT["tasks"] = {"spaces", "networks", "data"}
MAY_IMPORT["methods"] = {"spaces", "networks", "bilevel", "curvature", "tasks"}
MAY_IMPORT["plans"] = {*MAY_IMPORT["methods"], "methods", "nasbench201"}
MAY_IMPORT["runs"] = {*MAY_IMPORT["plans"], "plans", "forms"}
MAY_IMPORT["reports"] = {"spaces", "methods", "tasks", "nasbench201", "plans", "runs", "forms"}
COMMANDS = {"benchmark", "evaluate", "regret", "report", "search", "sweep", "tabulate"}


class Import(NamedTuple):
    module: str  # that imports, such as jaxdarts.plans.search
    imported: str
    line: int
    at_once: bool  # when the module is imported, not inside a function


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str) -> Iterator[Import]:
    """Of the package's own modules. What only type checkers read counts as inside a function."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if isinstance(child, ast.Import):
                for alias in child.names:
                    if alias.name.split(".")[0] == "jaxdarts":
                        yield Import(module, alias.name, child.lineno, at_once)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}:{child.lineno}: a relative import"
                if child.module is not None and child.module.split(".")[0] == "jaxdarts":
                    for alias in child.names:
                        whole = f"{child.module}.{alias.name}"
                        yield Import(module, whole if whole in MODULES else child.module, child.lineno, at_once)
            else:
                yield from walk(child, at_once and not inside and not types_only)

    yield from walk(ast.parse(MODULES[module].read_text()), True)


IMPORTS = [found for module in MODULES for found in imports_of(module)]


def layer(module: str) -> str:
    return (module.split(".") + [""])[1]


def told(found: Import) -> str:
    return f"{found.module}:{found.line} imports {found.imported}"


def test_every_module_has_a_place() -> None:
    assert {layer(module) for module in MODULES} - {""} == BASE | set(MAY_IMPORT) | COMMANDS


def test_imports_run_one_way() -> None:
    """Also inside functions. Commands, and the lazy list of public names, may import all but commands."""
    wrong = []
    for found in IMPORTS:
        own, other = layer(found.module), layer(found.imported)
        if own in ("", *COMMANDS):
            allowed = own == "" or other not in COMMANDS - {own}
        else:
            # Of the package itself, only its version and what it is.
            allowed = other == own or other in BASE or other == "" or other in MAY_IMPORT.get(own, set())
        if not allowed:
            wrong.append(told(found))
    assert not wrong


def test_reports_are_imported_by_commands_only() -> None:
    users = {layer(found.module) for found in IMPORTS if layer(found.imported) == "reports"}
    assert users <= {"", "reports", *COMMANDS}


def test_no_module_imports_itself_round_about() -> None:
    """Not inside functions either; only the package's own list of names, which is read when one is asked for."""
    after = {module: set[str]() for module in MODULES}
    for found in IMPORTS:
        # A package's __init__ gathers the names of its modules, which import each other by their own names.
        if found.module != "jaxdarts" and found.imported != found.module:
            after[found.module].add(found.imported)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(after[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def sources(*folders: str) -> list[Path]:
    return [path for module, path in MODULES.items() if layer(module) in folders]


def is_method(node: ast.AST) -> bool:
    """`settings.method`, `config["method"]` or `values.get("method", ...)`, but not a `Method` in an attribute.

    Objects with a method are named here, since an attribute does not say what it is.
    """
    if isinstance(node, ast.Attribute) and node.attr == "method":
        return not ast.unparse(node.value).endswith(("shared", "experiment", "training"))
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "method"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == "method"
    return False


def has_text(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node))


def test_nobody_asks_which_method_it_is() -> None:
    """Code passes the object: a method says in its entry what others must know of it.

    A method may be compared with that of other settings, and looked up in METHODS.
    """
    wrong = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            compared: list[ast.AST] = []
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                compared = sides if any(has_text(side) for side in sides if not is_method(side)) else []
            elif isinstance(node, ast.Match):
                compared = [node.subject]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
                compared = [node.func.value]
            wrong += [f"{module}:{node.lineno}" for one in compared if is_method(one)]  # type: ignore[attr-defined]
    assert not wrong


def test_methods_are_named_in_their_own_package_and_in_plans() -> None:
    """But where the name is also that of a space, of a baseline or of a function."""
    names = set(METHODS) - set(SPACES) - set(BASELINES) - set(jaxdarts.__all__)
    wrong = []
    for module, path in MODULES.items():
        if layer(module) not in ("methods", "plans"):
            nodes = ast.walk(ast.parse(path.read_text()))
            wrong += [f"{module}:{n.lineno}" for n in nodes if isinstance(n, ast.Constant) and n.value in names]
    assert len(names) > 3 and not wrong


@pytest.mark.parametrize("word", ["accurac", "label", "images"])
def test_what_serves_every_task_has_no_word_of_one(word: str) -> None:
    files = [*sources("bilevel", "curvature", "plans", "runs"), MODULES["jaxdarts.methods.base"]]
    assert len(files) > 40
    assert [path.name for path in files if re.search(rf"\b{word}", path.read_text(), re.IGNORECASE)] == []


def test_running_is_not_most_of_it() -> None:
    assert sum(len(path.read_text().splitlines()) for path in sources("runs")) <= 5000
