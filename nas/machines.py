"""The section of a study's file that says on which machines it runs."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from os.path import isabs
from typing import Literal, get_args

from search_space.checks import DIM, known_word, real, text, whole
from search_space.errors import require, shown
from search_space.machine import usable_cpus
from search_space.rates import AUTO

Device = Literal["auto", "cpu", "cuda"]


def this_machine() -> str:
    """In words, as studies note on which machine they were launched: with the cores they had."""
    return f"{platform.machine()}, {usable_cpus()} cores"


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The machines.

    count: evaluations at a time; 0 means one a core.
    device: `auto` takes a GPU where one is seen.
    gpus_per_trial: share of a GPU that a trial reserves, 0 for none. "auto" measures, before the
        study's trials begin, how many train the most tokens a second together; none where there is
        no GPU.
    threads: torch threads of a trial on the CPU.
    ray_address: a cluster; empty starts a local one.
    state_url: a folder or an fsspec URL that all workers reach, for the states of trainings; empty
        keeps them in the study's folder.
    """

    count: int = 0
    device: Device = "auto"
    gpus_per_trial: float | Literal["auto"] = "auto"
    threads: int = 1
    ray_address: str = ""
    state_url: str = ""

    def __post_init__(self) -> None:
        whole("workers.count", self.count, 0, DIM)
        known_word("workers.device", self.device, get_args(Device), "value")
        gpus = self.gpus_per_trial
        if isinstance(gpus, str):
            require(
                gpus == AUTO, f"workers.gpus_per_trial is a number, or {AUTO}: got {shown(gpus)}"
            )
        else:
            real("workers.gpus_per_trial", gpus, least=0)
        whole("workers.threads", self.threads, 1, DIM)
        text("workers.ray_address", self.ray_address)
        text("workers.state_url", self.state_url)
        require(
            not self.state_url or isabs(self.state_url) or "://" in self.state_url,
            "workers.state_url must name one place for all workers, and when the study is resumed "
            "from elsewhere: an absolute folder, or a URL such as s3://bucket/states: got "
            f"{shown(self.state_url)}",
        )
        require(
            self.device != "cuda" or gpus != 0,
            "workers.device: cuda needs gpus_per_trial above 0, such as 0.25 for four trials a "
            "GPU: got 0",
        )
        require(
            self.device != "cpu" or gpus in (0, AUTO),
            f"workers.gpus_per_trial {gpus} would reserve GPUs that device: cpu does not use; set "
            "device: auto or gpus_per_trial: 0",
        )

    @property
    def at_once(self) -> int:
        """Evaluations at a time, on this machine where `count` does not say."""
        return self.count or max(1, usable_cpus() // self.threads)
