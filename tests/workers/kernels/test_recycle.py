"""Memory that is used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from workers.kernels import recycle
from workers.kernels.recycle import recycled

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(recycle, "SMALL", 0)
    monkeypatch.setattr(recycle, "_free", [])


def take(n: int) -> torch.Tensor:
    return recycled(n, 4, dtype=torch.float32)


def test_memory_is_taken_again_after_its_last_tensor():
    x = take(100)
    address, part = x.data_ptr(), x[3:].detach()
    del x
    other = take(100)
    assert other.data_ptr() != address
    part.fill_(1.0)
    assert part.sum() == 97 * 4
    del part
    assert take(90).data_ptr() == address


def test_two_that_live_together_share_nothing():
    x, y = take(10).fill_(1.0), take(10).fill_(2.0)
    assert x.shape == (10, 4)
    assert x.sum() == 40
    assert y.sum() == 80


def test_a_block_serves_slightly_larger_requests_and_is_given_up_for_much_larger_ones():
    x = take(800)
    address = x.data_ptr()
    del x
    x = take(890)
    assert x.data_ptr() == address
    del x
    x = take(9000)
    assert recycle._free == []
    assert x.shape == (9000, 4)


def test_a_gradient_in_recycled_memory_survives_the_graph():
    w = torch.zeros(50, 4, requires_grad=True)

    class Fill(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w):
            return w.sum()

        @staticmethod
        def backward(ctx, dy):
            return take(50).fill_(3.0)

    Fill.apply(w).backward()
    take(50).fill_(-1.0)
    assert w.grad.eq(3.0).all()


def test_small_tensors_are_ordinary(monkeypatch):
    monkeypatch.setattr(recycle, "SMALL", 1 << 25)
    x = take(10)
    del x
    assert recycle._free == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is taught")
def test_freed_blocks_are_kept_by_the_allocator():
    """In a process of its own, for an allocator learns once: what it keeps it does not map."""
    code = """
import ctypes, torch
from workers.kernels.recycle import keep_freed_blocks
class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost").split()]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2
def mapped():
    before = mallinfo2().hblks
    block = torch.empty(30 << 20, dtype=torch.uint8)
    return mallinfo2().hblks - before
keep_freed_blocks()
print(mapped())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 0
