"""A GPU's part of a training step as one launch: its operations are captured in a CUDA graph.

N sequences, L tokens of a sequence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger(__name__)

# Steps that run as they are, before any is captured: libraries prepare themselves, kernels are
# timed, and the optimizers make their moments.
WARM_UP = 4

Body = Callable[[Tensor, Tensor, Tensor], None]
Capture = Callable[[Callable[[], None]], Callable[[], None]]


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record what `work` asks of the current GPU, without doing it; returns what does it.

    Raises RuntimeError for work that cannot be recorded: it waits for the GPU, or copies from
    memory that is not pinned.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    replay: Callable[[], None] = graph.replay
    return replay


class GraphedStep:
    """Steps of one shape, each on a batch and a factor of the rates that lie at fixed places.

    A graph holds what a step does, not what it decides on the host: so there is one for each turn
    of the optimizers, and `passed` tells them of a step that they did not see. Where a step cannot
    be captured, all run as they are, and a warning says why.

    body: the step: (inputs (N, L), targets (N, L), factor ()) on the device.
    turn: which graph the coming step needs.
    passed: called after a step that was replayed.
    undo: called after a capture that failed half-way, with the turn that it began in.
    """

    def __init__(
        self,
        body: Body,
        turn: Callable[[], int],
        passed: Callable[[], None],
        undo: Callable[[int], None],
        capture: Capture = cuda_graph,
    ) -> None:
        self.body, self.capture = body, capture
        self.turn, self.passed, self.undo = turn, passed, undo
        self.steps, self.why_not = 0, ""
        self.replays: dict[int, Callable[[], None]] = {}
        self.places: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(
        self,
        inputs: NDArray[np.int64],
        targets: NDArray[np.int64],
        factor: float,
        device: str,
    ) -> None:
        """Do a step; the device works on when this returns."""
        places = self._placed(inputs, targets, factor, device)
        self.steps += 1
        if self.steps <= WARM_UP or self.why_not:
            self.body(*places)
            return
        turn = self.turn()
        if turn not in self.replays:
            self._capture(turn, places)
            if self.why_not:
                self.body(*places)
                return
            self.replays[turn]()  # the capture has told the host's part of this step already
            return
        self.replays[turn]()
        self.passed()

    def _placed(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], factor: float, device: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        given = sent(inputs, device), sent(targets, device)
        if self.places is None or self.places[0].shape != given[0].shape:
            self.replays.clear()
            rate = torch.zeros((), dtype=torch.float32, device=device)
            self.places = given[0].clone(), given[1].clone(), rate
        for place, new in zip(self.places, given, strict=False):
            place.copy_(new)
        self.places[2].fill_(factor)
        return self.places

    def _capture(self, turn: int, places: tuple[Tensor, Tensor, Tensor]) -> None:
        try:
            self.replays[turn] = self.capture(lambda: self.body(*places))
        except RuntimeError as error:
            self.why_not = " ".join(str(error).split())[:200]
            self.replays.clear()
            self.undo(turn)
            log.warning("steps run without a CUDA graph, slower: %s", self.why_not)
            return
        if len(self.replays) == 1:
            log.info("steps are launched as one CUDA graph, after %d as they are", self.steps - 1)


def sent(array: NDArray[np.int64], device: str) -> Tensor:
    """An array on a device. A GPU gets it from pinned memory while it works on what it had."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
