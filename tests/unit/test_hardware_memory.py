"""Memory that a step frees stays with the process, so that the next step finds it without asking the system."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from trainer.hardware import give_back_memory, keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults_of(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def step():
    held = [torch.ones(3 * 2**20) for _ in range(8)]
for _ in range(8):
    step()
print(faults_of(lambda: [step() for _ in range(3)]))
give_back_memory()
print(faults_of(step))
"""


def faults(mode: str) -> tuple[int, int]:
    """Page faults of three steps of 96 MiB after the first ones, and of another one after memory was given back."""
    done = subprocess.run([sys.executable, "-c", COUNT, mode], capture_output=True, text=True, check=True)
    steps, after = done.stdout.split()
    return int(steps), int(after)


@pytest.mark.skipif(sys.platform != "linux", reason="counts what glibc asks of Linux")
def test_steps_find_the_memory_that_the_last_one_freed_until_it_is_given_back() -> None:
    steps, after = faults("kept")
    # 96 MiB are 24,576 pages of 4 KiB, fewer where pages are larger.
    assert steps < 500
    assert after > steps + 30
