"""What is told of a GPU: at toy sizes, with the CPU in its place."""

from __future__ import annotations

import re

import torch

from workers import gpu_report
from workers.gpu_report import TOY, rates, rows

CPU = torch.device("cpu")


def test_shares_are_of_the_devices_own_copy_and_product(monkeypatch):
    monkeypatch.setattr(gpu_report, "TIMES", 3)
    found = list(rates(CPU, torch.float32, TOY))
    assert [row["check"] for row in found] == [
        *("copy", "product", "grouped product, 4 experts", "sum of table rows", "RMSNorm")
    ]
    assert all(re.fullmatch(r"[\d,]+ µs, \d+% of the .*", row["found"]) for row in found[2:])


def test_the_larger_bound_counts(monkeypatch):
    monkeypatch.setattr(gpu_report, "device_rates", lambda *_: (100e9, 10e12))
    monkeypatch.setattr(gpu_report, "seconds", lambda call, device: 1e-3)
    case = gpu_report.Case("a", lambda: None, moved=50e6, flops=2e9)
    monkeypatch.setattr(gpu_report, "cases", lambda *_: [case])
    row = list(rates(CPU, torch.float32, TOY))[-1]
    # 50 MB take 0.5 ms, 2 GFLOP 0.2 ms.
    assert row == {
        "check": "a",
        "state": "ok",
        "found": "1,000 µs, 50% of the bandwidth measured above",
    }


def test_a_gpus_checks_come_first(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(gpu_report, "describe", lambda device: "torch (no)")
    monkeypatch.setattr(gpu_report, "verdict", lambda device: "the loss is nan")
    monkeypatch.setattr(gpu_report, "rates", lambda device, dtype, sizes: iter(()))
    assert list(rows(CPU)) == [
        {"check": "Test GPU: kernels", "state": "note", "found": "torch (no)"},
        {"check": "Test GPU: a training step", "state": "broken", "found": "the loss is nan"},
    ]
