"""`python -m workers.kernels`: which kernels run on this machine, checked on its GPU, and in a
second line which library multiplies on one thread of its CPU."""

from __future__ import annotations

import torch

from workers.kernels.dispatch import describe, describe_products

if __name__ == "__main__":
    torch.set_num_threads(1)  # as trials do
    print(describe("cuda" if torch.cuda.is_available() else "cpu"))
    print(describe_products())
