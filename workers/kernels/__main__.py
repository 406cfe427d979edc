"""`python -m workers.kernels`: which kernels run on this machine, checked on its GPU."""

from __future__ import annotations

import torch

from workers.kernels.dispatch import describe

if __name__ == "__main__":
    print(describe("cuda" if torch.cuda.is_available() else "cpu"))
