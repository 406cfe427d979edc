"""`python -m workers.kernels`: which kernels run on this machine, checked on its GPU; in a second
line which library multiplies on one thread of its CPU, and in a third what `recipe.precision: auto`
means here."""

from __future__ import annotations

import torch

from workers.kernels.dispatch import describe, describe_products
from workers.precision import automatic

if __name__ == "__main__":
    torch.set_num_threads(1)  # as trials do
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(describe(device))
    print(describe_products())
    print("{} ({})".format(*automatic(device, 1)))
