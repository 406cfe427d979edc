"""Mutated checkpoints, manifests and files of an export: one line each, or the right outcome."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

FULL, SHORT = 500, 12
SECONDS = 5.0  # that one attempt may take
EXPORT_SHARE = 4  # every so many attempts is one on an export
TEXT = "".join(f"def add_{n}(a, b):\n    return a + b + {n * n}\n\n" for n in range(4000))
HOSTILE = ("1e999", "-1", "null", "[]", "{}", '"x"', "9" * 400, "0", "1048576", "true", "NaN")


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Damage one file of a study's runs or of its export, then export or sample from it."""
    draw = random.Random(seed)
    with contextlib.chdir(folder), _environment(FFN_NAS_CACHE=str(folder / "cache")):
        _make_study(folder)
        runs, model = folder / "nas-runs", folder / "model"
        for name in (runs, model):
            shutil.copytree(name, f"{name}.kept")
        for index in range(count):
            exported = index % EXPORT_SHARE == 0
            root, judge = (model, _judge_export) if exported else (runs, _judge_checkpoint)
            yield _attempt(draw, root, judge)


def _attempt(draw: random.Random, root: Path, judge: Callable[[Path, bytes], str]) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = draw.choice(files)
    before = path.read_bytes()
    how = draw.choice(MUTATIONS)
    how(draw, path)
    began = time.monotonic()
    try:
        with _alarm():
            outcome = judge(path, before)
    except TimeoutError:
        outcome = "waited without end"
    finally:
        shutil.rmtree(root)
        shutil.copytree(f"{root}.kept", root)
    took = time.monotonic() - began
    if not outcome and took > SECONDS:
        outcome = f"took {took:.1f} s"
    return outcome and f"{how.__name__} of {path.name}: {outcome}"


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _judge_checkpoint(path: Path, before: bytes) -> str:
    """A damaged checkpoint is refused; one that was not changed exports."""
    trial = path.parent.name.removeprefix("trial-") if path.parent.name[:5] == "trial" else "0"
    code, out, err = _nas("export", "--no-verify", "--to", "out", "--trial", trial)
    left = Path("out").exists()
    if left:
        shutil.rmtree("out")
    if path.is_file() and path.read_bytes() == before:
        return "" if (code, left) == (0, True) else f"unchanged, and refused: {err}"
    if (code, left) != (2, False):
        return f"exit code {code}, {'something' if left else 'nothing'} written: {out}{err}"
    return _not_one_line(err)


def _judge_export(path: Path, before: bytes) -> str:
    """An export that was damaged is sampled from, or refused in one line."""
    code, _, err = _nas("generate", "model", "--tokens", "2", "--prompt", "def ")
    if code == 0:
        return ""
    return _not_one_line(err) if code == 2 else f"exit code {code}: {err}"


def _not_one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip()]
    if len(lines) == 1 and lines[0].startswith("Error: "):
        return ""
    return f"not one line: {err[-300:]!r}"


def _nas(*arguments: str) -> tuple[int, str, str]:
    from nas.command.cli import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(list(arguments))
    return code, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values, HF_HUB_OFFLINE="1", HF_MODULES_CACHE=values["FFN_NAS_CACHE"])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _make_study(folder: Path) -> None:
    """A study of two designs, trained in this process, and the export of one."""
    import nas
    from benchmarks.simulated_pool import SimulatedPool
    from workers.actor import prepare_corpus
    from workers.evaluate import evaluate

    class HerePool(SimulatedPool):
        def prepare(self, *arguments):  # type: ignore[no-untyped-def, override]
            return prepare_corpus(*arguments)

    (folder / "corpus.txt").write_text(TEXT)
    config = {
        "name": "tiny",
        "backbone": {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32},
        "recipe": {"batch_size": 2},
        "eval_tokens": 256,
        "budget": {"trials": 2, "trial_flops": 1e8},
        "warm_start": ["dense", "switch"],
        "corpus": {"source": "corpus.txt"},
    }
    pool = HerePool(1, lambda request: (1.0, [evaluate(request, lambda progress: None)]))
    with nas.launch(config, pool_factory=lambda config: pool) as study:
        study.export("model", verify=False)


def _flip(draw: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 8, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def _cut(draw: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def _lengthen(draw: random.Random, path: Path) -> None:
    with open(path, "ab") as file:
        file.write(draw.randbytes(draw.choice((1, 100, 10_000))))


def _empty(draw: random.Random, path: Path) -> None:
    path.write_bytes(b"")


def _remove(draw: random.Random, path: Path) -> None:
    path.unlink()


def _replace_with_noise(draw: random.Random, path: Path) -> None:
    path.write_bytes(draw.randbytes(path.stat().st_size))


def _replace_with_folder(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_with_pipe(draw: random.Random, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link_to_nothing(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _change_a_value(draw: random.Random, path: Path) -> None:
    """Of a JSON file; another file is cut."""
    try:
        data = json.loads(path.read_bytes())
    except ValueError:
        _cut(draw, path)
        return
    place = data
    while isinstance(place, (dict, list)) and place:
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], (dict, list)) or not place[key] or draw.random() < 0.3:
            place[key] = "@@@"
            break
        place = place[key]
    path.write_text(json.dumps(data).replace('"@@@"', draw.choice(HOSTILE)))


MUTATIONS = (
    _flip,
    _cut,
    _lengthen,
    _empty,
    _remove,
    _replace_with_noise,
    _replace_with_folder,
    _replace_with_pipe,
    _link_to_nothing,
    _change_a_value,
    _change_a_value,
    _change_a_value,
)
