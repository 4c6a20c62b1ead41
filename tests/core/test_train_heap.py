"""Freed memory is used again instead of being fetched page by page."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from simcrop_core.train.heap import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(20):
    torch.ones(64, 1 << 18)
start = faults()
for _ in range(20):
    torch.ones(64, 1 << 18)
print(faults() - start)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is meant")
@pytest.mark.slow
def test_freed_tensors_cost_no_new_pages() -> None:
    def faults(how: str) -> int:
        words = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    assert faults("keep") < faults("return") / 10
