"""Python code without what only its readers need: annotations, docstrings and the imports that these need.

Pure. What runs in a sandbox under an old Python, and what has to be compiled there at every start, says no more than
it does.
"""

from __future__ import annotations

import ast


def trim(text: str) -> str:
    """Return code that does the same as `text`. It has to look at none of its own annotations and docstrings."""
    return ast.unparse(ast.fix_missing_locations(_Trim().visit(ast.parse(text))))


class _Trim(ast.NodeTransformer):
    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        self.generic_visit(node)
        return ast.Assign([node.target], node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._documented(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._documented(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._documented(node)

    def _documented(self, node: ast.FunctionDef | ast.ClassDef | ast.Module) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node
