"""Rules of the kernels that no compiler checks, read from their source.

A row times a stride overflows 32 bits on tables of a few gigabytes, and a masked load without
`other` reads whatever the register held.
"""

from __future__ import annotations

import ast
import collections
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "workers" / "kernels" / "triton"
FILES = sorted(FOLDER.glob("*.py"))
OWN = ("self", "cls")


def kernels(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(
            ast.unparse(decorator) == "triton.jit" for decorator in node.decorator_list
        ):
            yield node


def is_wide(node: ast.expr, wide: set[str]) -> bool:
    """Whether an expression is int64: cast here, or made of what is."""
    if isinstance(node, ast.Call):
        text = ast.unparse(node)
        return text.endswith(".to(tl.int64)") or (
            text.startswith("tl.cast(") and text.endswith("tl.int64)")
        )
    if isinstance(node, ast.Subscript):
        return is_wide(node.value, wide)
    if isinstance(node, ast.BinOp):
        return is_wide(node.left, wide) or is_wide(node.right, wide)
    return isinstance(node, ast.Name) and node.id in wide


def assignments(kernel: ast.FunctionDef) -> dict[str, list[ast.expr]]:
    """Every expression that each name is given."""
    given = collections.defaultdict(list)
    for node in ast.walk(kernel):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        paired = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        pairs = zip(target.elts, value.elts, strict=True) if paired else [(target, value)]
        for name, expression in pairs:
            if isinstance(name, ast.Name):
                given[name.id].append(expression)
    return given


def wide_names(kernel: ast.FunctionDef) -> set[str]:
    """Names that hold int64 wherever they are assigned."""
    given, wide = assignments(kernel), set()
    while True:
        grown = {n for n, values in given.items() if all(is_wide(v, wide) for v in values)}
        if grown == wide:
            return wide
        wide = grown


def narrow_products(tree: ast.AST) -> list[str]:
    """Products with a stride whose other side is not int64."""
    found = []
    for kernel in kernels(tree):
        wide = wide_names(kernel)
        for node in ast.walk(kernel):
            if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
                continue
            sides = [node.left, node.right]
            strides = [s for s in sides if isinstance(s, ast.Name) and s.id.startswith("stride_")]
            others = [s for s in sides if s not in strides]
            if strides and not any(is_wide(side, wide) for side in others):
                found.append(f"{kernel.name}: {ast.unparse(node)}")
    return found


def bare_loads(tree: ast.AST) -> list[str]:
    """Masked loads without `other`."""
    return [
        f"{kernel.name}: {ast.unparse(node)}"
        for kernel in kernels(tree)
        for node in ast.walk(kernel)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "tl.load"
        and {k.arg for k in node.keywords} & {"mask", "other"} == {"mask"}
    ]


def untyped(tree: ast.AST) -> list[str]:
    """Functions without all types that are no kernels: mypy cannot tell the two apart."""
    jitted = list(kernels(tree))
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node not in jitted
        if node.returns is None
        or any(a.annotation is None and a.arg not in OWN for a in named(node))
    ]


def named(function: ast.FunctionDef) -> list[ast.arg]:
    """All arguments of a function, those of stars included."""
    given = function.args
    stars = [a for a in (given.vararg, given.kwarg) if a is not None]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *stars]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_row_times_stride_is_64_bits_and_masked_loads_have_other(path):
    tree = ast.parse(path.read_text())
    assert narrow_products(tree) == []
    assert bare_loads(tree) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_no_kernel_has_types(path):
    assert untyped(ast.parse(path.read_text())) == []


def test_there_are_kernels_to_read():
    names = {kernel.name for path in FILES for kernel in kernels(ast.parse(path.read_text()))}
    assert {"product_kernel", "row_gradient_kernel", "cross_entropy_kernel"} <= names


@pytest.mark.parametrize(
    ("body", "findings"),
    [
        ("row = tl.program_id(0)\n tl.store(p + row * stride_x, 0)", 1),
        ("row = tl.program_id(0).to(tl.int64)\n tl.store(p + row * stride_x, 0)", 0),
        ("row = tl.program_id(0).to(tl.int64)\n row = tl.arange(0, 4)\n q = row * stride_x", 1),
        ("q = p + stride_x * tl.program_id(0)", 1),
        ("q = p + tl.load(p)[:, None] * stride_x", 1),
        ("row = tl.load(p).to(tl.int64) + tl.arange(0, 4)\n q = row[:, None] * stride_x", 0),
    ],
)
def test_the_lint_sees_a_narrow_product(body, findings):
    code = f"@triton.jit\ndef kernel(p, stride_x):\n {body}\n"
    assert len(narrow_products(ast.parse(code))) == findings


def test_the_lint_sees_a_bare_load():
    code = "@triton.jit\ndef kernel(p, m):\n x = tl.load(p, mask=m)\n y = tl.load(p)\n"
    assert len(bare_loads(ast.parse(code))) == 1


@pytest.mark.parametrize(
    ("code", "findings"),
    [
        ("@triton.jit\ndef kernel(p):\n pass", 0),
        ("def host(x: int) -> int:\n return x", 0),
        ("def host(x) -> int:\n return x", 1),
        ("def host(*x, y: int) -> int:\n return y", 1),
        ("def host(x: int):\n return x", 1),
        ("class A:\n def own(self, x: int) -> int:\n  return x", 0),
    ],
)
def test_the_lint_sees_a_function_without_types(code, findings):
    assert len(untyped(ast.parse(code))) == findings
