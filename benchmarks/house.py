"""The state of the house, in counts: circles, long functions, long files, twins, docstrings, lines.

`python -m benchmarks.house --json FILE`; with `--before COMMIT` the product's lines there, too.
The product is what the four packages have; benchmarks are held to the same bars, tests are not.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path

from benchmarks.report import Row, at_most, parser, publish

ROOT = Path(__file__).parents[1]
PRODUCT = ("search_space", "workers", "nas", "dashboard")
HELD = (*PRODUCT, "benchmarks")
LONG_FUNCTION, LONG_FILE, TWIN = 60, 350, 10  # lines
MOST_EXCUSED = 5
# Pairs of places that may share ten lines, and why; one file is a pair with itself.
EXCUSED: Mapping[frozenset[str], str] = {
    frozenset(("workers/kernels/triton/expert_ffn.py",)): (
        "torch.library reads an operator's schema off its signature: the operator and its caller "
        "each have one"
    ),
    frozenset(("workers/kernels/triton/rotary.py",)): (
        "a kernel of Triton names each argument on a line: forward and backward have the same sizes"
    ),
}

NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(root: Path, packages: tuple[str, ...] = HELD) -> dict[str, str]:
    """The text of every module by its path below `root`."""
    files = (path for package in packages for path in sorted((root / package).rglob("*.py")))
    return {path.relative_to(root).as_posix(): path.read_text() for path in files}


def module_name(path: str) -> str:
    """`nas/store/api.py` -> `nas.store.api`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def import_graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """By module those of `texts` that it imports while it is imported, for types alone, or later
    in a function."""
    names = {module_name(path) for path in texts}
    graph: dict[str, set[str]] = {}
    for path, text in texts.items():
        own, found = module_name(path), set[str]()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & names
                found |= inner or {node.module}
        graph[own] = (found & names) - {own}
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, the first twice; empty when there is no ring."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def long_functions(texts: Mapping[str, str]) -> Iterator[str]:
    """Functions of more than LONG_FUNCTION lines, decorators and docstring included."""
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONG_FUNCTION:
                    yield f"{path}: {node.name} has {lines}"


def long_files(texts: Mapping[str, str]) -> Iterator[str]:
    """Files of more than LONG_FILE lines."""
    for path, text in texts.items():
        if (lines := text.count("\n")) > LONG_FILE:
            yield f"{path} has {lines}"


def twins(texts: Mapping[str, str]) -> dict[frozenset[str], int]:
    """Files with places that share TWIN or more lines in a row, and how many lines or so.

    Imports, blank lines and lines of brackets alone do not count.
    """
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for path, text in texts.items():
        lines = _telling_lines(text)
        for i in range(len(lines) - TWIN + 1):
            places[tuple(lines[i : i + TWIN])].append((path, i))
    windows = Counter(
        frozenset((a[0], b[0]))
        for found in places.values()
        for a, b in combinations(found, 2)
        if a[0] != b[0] or b[1] - a[1] >= TWIN
    )
    return {pair: count + TWIN - 1 for pair, count in windows.items()}


def _telling_lines(text: str) -> list[str]:
    imports = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate((line.strip() for line in text.splitlines()), start=1)
    return [line for number, line in lines if number not in imports and any(map(str.isalnum, line))]


def undocumented(texts: Mapping[str, str]) -> Iterator[str]:
    """Public functions and methods of public classes that have no docstring, and such classes."""
    for path, text in texts.items():
        for node in _public(ast.parse(text)):
            if not ast.get_docstring(node) and not _is_overload(node):
                yield f"{path}: {node.name}"


def _public(tree: ast.AST) -> Iterator[Function | ast.ClassDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def _is_overload(node: Function | ast.ClassDef) -> bool:
    return any(
        ast.unparse(each).startswith(("overload", "override")) for each in node.decorator_list
    )


def code_lines(text: str) -> int:
    """Lines that have code: not blank ones, comments and docstrings."""
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - docstrings)


def rooms(texts: Mapping[str, str]) -> Counter[str]:
    """Lines of code by folder."""
    found: Counter[str] = Counter()
    for path, text in texts.items():
        found[path.rpartition("/")[0]] += code_lines(text)
    return found


def at_commit(commit: str) -> dict[str, str]:
    """The product's sources as they stand at a commit."""
    archive = subprocess.run(
        ["git", "archive", commit, *PRODUCT], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
        return sources(Path(folder), PRODUCT)


def rows(before: str | None = None) -> Iterator[Row]:
    """A row a count with its bar, what was found below it, then lines by room."""
    texts = sources(ROOT)
    product = {path: text for path, text in texts.items() if path.split("/")[0] in PRODUCT}
    ring = circle(import_graph(texts))
    counts = {
        "circles of imports, of types and of functions, too": ([" -> ".join(ring)] if ring else []),
        f"functions over {LONG_FUNCTION} lines": list(long_functions(texts)),
        f"files over {LONG_FILE} lines": list(long_files(texts)),
        "public functions and classes without a docstring": list(undocumented(product)),
    }
    for name, found in counts.items():
        yield at_most(name, len(found), 0)
        yield from (Row(f"  {each}", "") for each in found)
    yield from _twin_rows(twins(texts))
    yield from _lines(product, before)


def _twin_rows(shared: Mapping[frozenset[str], int]) -> Iterator[Row]:
    excused = shared.keys() & EXCUSED.keys()
    for kind, pairs, most in (("no", shared.keys() - excused, 0), ("an", excused, MOST_EXCUSED)):
        yield at_most(f"pairs that share {TWIN} lines, with {kind} excuse", len(pairs), most)
        for pair in sorted(map(sorted, pairs)):
            why = EXCUSED.get(frozenset(pair), "")
            lines = f"share {shared[frozenset(pair)]} lines or so"
            yield Row(f"  {' and '.join(pair)} {lines}{why and ': '}{why}", "")


def _lines(product: Mapping[str, str], before: str | None) -> Iterator[Row]:
    now = rooms(product)
    then = rooms(at_commit(before)) if before else Counter[str]()
    for room in sorted(now.keys() | then.keys()):
        yield Row(f"lines of code: {room}", now[room], f"before {then[room]}" if before else "")
    total = now.total()
    yield Row("lines of code of the product", total, f"before {then.total()}" if before else "")


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--before", metavar="COMMIT", help="count the lines there, too")
    options = arguments.parse_args()
    sys.exit(publish(rows(options.before), options.json))


if __name__ == "__main__":
    main()
