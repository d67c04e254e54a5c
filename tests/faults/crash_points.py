"""Names for every place at which a program waits, and a way to die there, without a word of it in the program.

An import hook rewrites chosen modules as they are loaded: each `await`, `async for` and `async with` gets a named
point on both sides. A point is `module:Class.function:what is awaited:side`, numbered where a function awaits the same
twice; so its name stays the same when lines move, and a new `await` has one by itself.

The file `armed` in the folder `FAULTS_FOLDER` says what a pass does: `record` writes names down, `die <name> <count>`
ends the process by SIGKILL at that pass, `stop <name> <count>` stops it by SIGSTOP. Without the file, passing costs one
look for it.

Source: issue "Nothing lost"; PEP 451 (module spec finders).
"""

import ast
import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

PASSED = "__passed__"
FOLDER = "FAULTS_FOLDER"


class Points:
    """What happens at a pass, as the file `armed` says."""

    def __init__(self, folder: Path) -> None:
        """Obey the files of a folder."""
        self._armed = folder / "armed"
        self._log = folder / "passed"
        self._order = ""
        self._passes = 0

    def passed(self, name: str) -> None:
        """Be told that the program is at this point."""
        try:
            order = self._armed.read_text()
        except FileNotFoundError:
            return
        if order != self._order:
            self._order, self._passes = order, 0
        if order == "record":
            with self._log.open("a") as log:
                log.write(name + "\n")
            return
        word, wanted, count = order.split(" ")
        if name != wanted:
            return
        self._passes += 1
        if self._passes >= int(count):
            self._armed.unlink(missing_ok=True)  # the order may have been taken back in this moment
            os.kill(os.getpid(), signal.SIGKILL if word == "die" else signal.SIGSTOP)


class Rewriter(ast.NodeTransformer):
    """Puts a call with a point's name on both sides of each wait in a module."""

    def __init__(self, module: str) -> None:
        """Name points after a module, without its packages' common root."""
        self._module = module
        self._scope: list[str] = []
        self._seen: Counter[str] = Counter()
        self.names: list[str] = []

    def _name(self, awaited: ast.expr) -> str:
        base = f"{self._module}:{'.'.join(self._scope) or '<module>'}:{_said(awaited)}"
        self._seen[base] += 1
        return base if self._seen[base] == 1 else f"{base}#{self._seen[base]}"

    def _point(self, name: str) -> ast.expr:
        if name not in self.names:
            self.names.append(name)
        return ast.Call(ast.Name(PASSED, ast.Load()), [ast.Constant(name)], [])

    def _around(self, name: str, node: ast.expr, sides: Sequence[str]) -> ast.expr:
        """Return an expression that passes a point, is `node`, and passes the next point if there is one."""
        before, *after = (self._point(f"{name}:{side}") for side in sides)
        return ast.Subscript(ast.Tuple([before, node, *after], ast.Load()), ast.Constant(1), ast.Load())

    def _scoped(self, node: ast.AST, name: str) -> ast.AST:
        self._scope.append(name)
        self.generic_visit(node)
        self._scope.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._scoped(node, node.name)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._scoped(node, node.name)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._scoped(node, node.name)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        name = self._name(node.value)
        self.generic_visit(node)
        return self._around(name, node, ("before", "after"))

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        name = self._name(node.iter)
        self.generic_visit(node)
        node.iter = self._around(name, node.iter, ("before",))
        node.body.insert(0, ast.Expr(self._point(f"{name}:next")))
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST | list[ast.stmt]:
        name = self._name(node.items[0].context_expr)
        self.generic_visit(node)
        node.items[0].context_expr = self._around(name, node.items[0].context_expr, ("before",))
        node.body.insert(0, ast.Expr(self._point(f"{name}:entered")))
        return [node, ast.Expr(self._point(f"{name}:left"))]


def _said(awaited: ast.expr) -> str:
    """Return the last word of what is awaited: `means.on_disk(means.ledger.enter, …)` -> `on_disk(enter)`."""
    if isinstance(awaited, ast.Call):
        first = awaited.args[0] if awaited.args else None
        inner = first.attr if isinstance(first, ast.Attribute) else ""
        return _said(awaited.func) + (f"({inner})" if inner else "")
    if isinstance(awaited, ast.Attribute):
        return awaited.attr
    return awaited.id if isinstance(awaited, ast.Name) else type(awaited).__name__.lower()


def rewrite(source: str, path: str, module: str) -> tuple[ast.Module, list[str]]:
    """Return a module's tree with its points, and their names in order.

    Args:
        source: its text.
        path: for tracebacks.
        module: its name in the points' names.
    """
    rewriter = Rewriter(module)
    tree = rewriter.visit(ast.parse(source, path))
    return ast.fix_missing_locations(tree), rewriter.names


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with points in it; nothing of it is cached on disk."""

    points: Points

    def get_code(self, fullname: str):  # type: ignore[no-untyped-def]
        path = self.get_filename(fullname)
        tree, _ = rewrite(
            self.get_data(path).decode(), path, fullname.removeprefix("edgeagents.").removeprefix("services.")
        )
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, PASSED, self.points.passed)
        super().exec_module(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that get points, by the beginnings of their names."""

    def __init__(self, beginnings: Sequence[str], points: Points) -> None:
        """Concern modules whose names are these, or lie below them."""
        self._beginnings = tuple(beginnings)
        self._points = points

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None):  # type: ignore[no-untyped-def]
        if not any(name == item or name.startswith(item + ".") for item in self._beginnings):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            loader = Loader(spec.loader.name, spec.loader.path)
            loader.points = self._points
            spec.loader = loader
        return spec


def install(beginnings: Sequence[str], folder: Path) -> None:
    """Give every module loaded from now on whose name begins so its points."""
    sys.meta_path.insert(0, Finder(beginnings, Points(folder)))
