"""How many trials of a study should share a GPU: measured, before the study's workers start.

A small proxy leaves most of a GPU idle, so several on one train more tokens a second in all, until
they stand in each other's way or its memory is full. `measure` has 1, 2, 4... processes train the
study's reference design on the device at hand, all at once, and takes the smallest number that is
as good as any. `python -m workers.sharing` is one such process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.cost import step_flops
from search_space.errors import InputError, WorkFailed
from search_space.spec import FFNSpec
from workers.device import resolve_device

COUNTS = (1, 2, 4, 8, 16)
WARM_STEPS = 20  # kernels are compiled and tuned in them
SECONDS = 3.0
START_S = 300.0  # for all processes of one count to get ready
LEAST_GAIN = 1.05  # of tokens a second, for which twice as many share
MOST_MEMORY = 0.9  # of the device's; the rest is for contexts and what a design needs beyond this


@dataclass(frozen=True)
class Sharing:
    """What was measured.

    trials: that should share the device.
    rates: (trials, tokens a second of all of them together), as far as was measured.
    peak: the most bytes that one trial held; 0 on a CPU.
    total: bytes of the device; 0 on a CPU.
    why: what ended the measuring.
    """

    trials: int
    rates: tuple[tuple[int, float], ...]
    peak: float
    total: float
    why: str

    @property
    def words(self) -> str:
        """One line for people: `4 trials share a GPU: 1.0, 1.8, 2.9, 2.9 times one's tokens...`."""
        counts = ", ".join(str(count) for count, _ in self.rates)
        alone = self.rates[0][1]
        gains = ", ".join(f"{rate / alone:.2f}" for _, rate in self.rates)
        memory = f"; one holds {self.peak / 2**30:.1f} of {self.total / 2**30:.1f} GiB"
        return (
            f"{self.trials} trials share a GPU: {counts} of them train {gains} times the tokens of "
            f"one a second ({alone:,.0f}){memory if self.total else ''}; {self.why}"
        )


class OutOfMemory(Exception):
    """A process had too little of the device's memory."""


def measure(
    request: EvalRequest, counts: Sequence[int] = COUNTS, seconds: float = SECONDS
) -> Sharing:
    """See the module. Raises InputError where the memory is too small for one trial, with the
    batch that fits, and WorkFailed where a process does not train at all."""
    request = dataclasses.replace(request, device=resolve_device(request.device))
    total = memory_of(request.device)
    rates: list[tuple[int, float]] = []
    peak, why = 0.0, f"more than {counts[-1]} were not tried"
    with contextlib.ExitStack() as stack:
        team = stack.enter_context(Team(request))
        for count in counts:
            if total and count * peak > MOST_MEMORY * total:
                why = f"{count} would not fit into its memory"
                break
            try:
                # The first alone says what one holds; then all that may be tried start at once.
                team.grow(count if count == 1 else room(counts, peak, total))
                rate, peak = team.train(count, seconds)
            except OutOfMemory as error:
                if count == 1:
                    raise InputError(too_small(request, total)) from error
                why = f"{count} did not fit into its memory"
                break
            rates.append((count, rate))
            if count > 1 and rate < LEAST_GAIN * rates[-2][1]:
                why = "more would stand in each other's way"
                break
    return Sharing(best(rates), tuple(rates), peak, total, why)


def room(counts: Sequence[int], peak: float, total: float) -> int:
    """The largest count that fits into the memory by what one trial held."""
    return max(n for n in counts if not total or n * peak <= MOST_MEMORY * total)


def best(rates: Sequence[tuple[int, float]]) -> int:
    """The smallest number of trials whose rate no other beats by LEAST_GAIN."""
    highest = max(rate for _, rate in rates)
    return min(count for count, rate in rates if rate * LEAST_GAIN > highest)


def memory_of(device: str) -> float:
    """Bytes of a GPU's memory; 0 for a CPU."""
    if torch.device(device).type != "cuda":
        return 0.0
    return float(torch.cuda.get_device_properties(device).total_memory)


def too_small(request: EvalRequest, total: float) -> str:
    """What to do where not even one trial fits: the largest batch of half, a quarter... that
    does."""
    size, has = request.recipe.batch_size, f"the GPU has {total / 2**30:.1f} GiB"
    smaller = size // 2
    while smaller:
        recipe = dataclasses.replace(request.recipe, batch_size=smaller)
        try:
            together(dataclasses.replace(request, recipe=recipe), 1, 0.0)
        except OutOfMemory:
            smaller //= 2
            continue
        return (
            f"recipe.batch_size {size} needs more memory for one trial than {has}; "
            f"{smaller} fits: set it, or a smaller backbone"
        )
    return (
        f"one trial needs more memory than {has}, even with recipe.batch_size 1; make the backbone "
        "smaller"
    )


def together(request: EvalRequest, count: int, seconds: float) -> tuple[float, float]:
    """Tokens a second of so many processes that train at once, and the most bytes one held.

    Raises OutOfMemory, WorkFailed.
    """
    with Team(request) as team:
        team.grow(count)
        return team.train(count, seconds)


class Team:
    """Processes that train the same design, started once and asked as often as is measured. Those
    that are not asked wait, and hold their memory."""

    def __init__(self, request: EvalRequest) -> None:
        self.request, self.full = request, ""
        self.children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: object) -> None:
        while self.children:
            _end(self.children.pop())

    def grow(self, count: int) -> None:
        """Start as many as are missing, all at once. Those that do not fit into the memory end, and
        `train` says so. Raises WorkFailed."""
        pipe, old = subprocess.PIPE, len(self.children)
        command = [sys.executable, "-m", "workers.sharing"]
        for _ in range(old, count):
            child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
            self.children.append(child)
            _say(child, _plain(self.request))
        deadline = time.monotonic() + START_S
        for child in self.children[old:]:
            try:
                _answer(child, deadline)
            except OutOfMemory as error:
                self.full = str(error)
                self.children.remove(child)
                _end(child)

    def train(self, count: int, seconds: float) -> tuple[float, float]:
        """Tokens a second of `count` of them at once, and the most bytes one held.

        Raises OutOfMemory, also where fewer have started; WorkFailed.
        """
        if count > len(self.children):
            raise OutOfMemory(self.full)
        asked = self.children[:count]
        for child in asked:
            _say(child, {"seconds": seconds})
        deadline = time.monotonic() + START_S + seconds
        told = [_answer(child, deadline) for child in asked]
        rate = sum(each["tokens"] / max(each["seconds"], 1e-9) for each in told)
        return rate, max(each["peak"] for each in told)


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def _say(child: subprocess.Popen[str], words: dict[str, Any]) -> None:
    stdin: IO[str] | None = child.stdin
    assert stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended: its answer, or its code, says why
        stdin.write(json.dumps(words) + "\n")
        stdin.flush()


def _answer(child: subprocess.Popen[str], deadline: float) -> dict[str, Any]:
    import selectors

    assert child.stdout is not None
    with selectors.DefaultSelector() as waiting:
        waiting.register(child.stdout, selectors.EVENT_READ)
        ready = waiting.select(max(0.0, deadline - time.monotonic()))
    line = child.stdout.readline() if ready else ""
    if not line:
        how = "gave no answer" if not ready else f"ended with {child.wait()}"
        raise WorkFailed(
            f"how many trials share a GPU cannot be measured: a process {how}; set "
            "workers.gpus_per_trial to a number"
        )
    told: dict[str, Any] = json.loads(line)
    if "out_of_memory" in told:
        raise OutOfMemory(told["out_of_memory"])
    if "error" in told:
        raise WorkFailed(
            f"how many trials share a GPU cannot be measured: {told['error']}; set "
            "workers.gpus_per_trial to a number"
        )
    return told


def _plain(request: EvalRequest) -> dict[str, Any]:
    return {
        "spec": request.spec.to_dict(),
        "backbone": request.backbone.to_dict(),
        "recipe": request.recipe.to_dict(),
        "until_flops": request.until_flops,
        "device": request.device,
    }


def _request(plain: dict[str, Any]) -> EvalRequest:
    return EvalRequest(
        evaluation=0,
        spec=FFNSpec.from_dict(plain["spec"]),
        backbone=Backbone.from_dict(plain["backbone"]),
        recipe=Recipe.from_dict(plain["recipe"]),
        corpus_dir="",
        until_flops=plain["until_flops"],
        device=plain["device"],
    )


class RandomTokens:
    """Stands for a corpus where speed alone matters: batches of random tokens."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.token_counts = np.ones(vocab_size, dtype=np.int64)

    def batch(
        self, step: int, seed: int, batch_size: int, seq_len: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets, (N, L) each."""
        draw = np.random.default_rng((seed, step))
        ids_NL = draw.integers(self.vocab_size, size=(batch_size, seq_len + 1))
        return np.ascontiguousarray(ids_NL[:, :-1]), np.ascontiguousarray(ids_NL[:, 1:])


def endless(request: EvalRequest) -> Any:
    """A trial's own training, on random tokens, with no end and no point of the curve in sight."""
    from workers.model import ProxyLM
    from workers.training.initial import draw_by_name
    from workers.training.loop import Training

    flops = 1e6 * step_flops(request.spec, request.backbone, request.recipe.batch_size)
    request = dataclasses.replace(request, until_flops=flops, curve_flops=flops)
    corpus: Any = RandomTokens(request.backbone.vocab_size)
    model = ProxyLM(request.spec, request.backbone)
    draw_by_name(model, request.seed)
    model.set_token_counts(torch.from_numpy(corpus.token_counts))
    model.begin_run(request.recipe.warmup)
    model = model.to(request.device).train()
    return Training(model, request, corpus, lambda progress: None)


class Trainee:
    """A proxy that trains on random tokens."""

    def __init__(self, request: EvalRequest) -> None:
        self.training = endless(request)
        self.request = self.training.request

    def step(self) -> None:
        """One batch forward, backward and applied."""
        self.training.step()

    def train(self, seconds: float) -> dict[str, float]:
        """Steps for so long, at least one: tokens, the time they took, and the peak of memory."""
        on_gpu = torch.device(self.request.device).type == "cuda"
        began, steps = time.monotonic(), 0
        while not steps or time.monotonic() - began < seconds:
            self.step()
            steps += 1
        if on_gpu:
            torch.cuda.synchronize()
        took = time.monotonic() - began
        peak = torch.cuda.max_memory_reserved() if on_gpu else 0
        tokens = steps * self.request.recipe.batch_size * self.request.backbone.seq_len
        return {"tokens": tokens, "seconds": took, "peak": peak}


def main() -> None:
    """One process: a request in, "ready" out; then, as often as asked, for how long in, what it
    trained out; JSON lines."""

    def say(**words: Any) -> None:
        print(json.dumps(words), flush=True)

    try:
        trainee = Trainee(_request(json.loads(sys.stdin.readline())))
        for _ in range(WARM_STEPS if trainee.request.device != "cpu" else 1):
            trainee.step()
        say(ready=True)
        for line in sys.stdin:
            say(**trainee.train(float(json.loads(line)["seconds"])))
    except (MemoryError, torch.OutOfMemoryError) as error:
        say(out_of_memory=" ".join(str(error).split())[:300])
    except Exception as error:
        say(error=" ".join(f"{type(error).__name__}: {error}".split())[:300])


if __name__ == "__main__":
    main()
