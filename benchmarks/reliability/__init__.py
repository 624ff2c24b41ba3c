"""What Patina withstands, row by row of ``docs/reliability.md``.

    python -m benchmarks.reliability                    # names every row
    python -m benchmarks.reliability kill-cli           # the whole of a row
    python -m benchmarks.reliability kill-cli --count 20

The test suite runs every row with a small count (``tests/e2e/test_reliability.py``). Faults are put under the product
from outside (`benchmarks.reliability.faults`); the product knows nothing of them.
"""
