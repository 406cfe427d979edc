"""What torchrun starts in test_train_ranks: commands of `nas`, one after another in each process.

python -m torch.distributed.run --nproc-per-node 2 train_in_ranks.py '[["train", ...], ...]'
"""

from __future__ import annotations

import json
import sys

import torch.distributed as dist

from nas.command.cli import run
from nas.process import interrupts


def main() -> int:
    dist.init_process_group("gloo")
    try:
        return max(run(arguments) for arguments in json.loads(sys.argv[1]))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(interrupts.command(main))
