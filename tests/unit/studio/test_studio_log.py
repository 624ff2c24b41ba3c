"""What a worker and the command line write down stays within bounds, however long they live."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trainer.cli.mending import KEPT_LOGS, _write_log
from trainer.studio.worker.pipe import LOG_BYTES

CODE = """
import os, sys
from pathlib import Path
from trainer.studio.worker.pipe import bound_log, private_stdout
log = Path(sys.argv[1])
private_stdout(log)
for line in range(3):
    os.write(2, b"x" * (3 * 2**20) + b"\\n")
    bound_log(log)
print("the end", file=sys.stderr)
"""


def test_a_workers_log_is_bounded_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "worker.log"
    subprocess.run([sys.executable, "-c", CODE, str(log)], check=True)
    assert log.stat().st_size <= LOG_BYTES
    assert log.read_bytes().endswith(b"the end\n")
    assert b"\0" not in log.read_bytes()
    assert "worker" in log.with_suffix(".old.log").read_text()[:40]


def test_only_the_newest_logs_of_bugs_are_kept(patina_home: Path) -> None:
    logs = patina_home / "logs"
    logs.mkdir()
    for number in range(KEPT_LOGS + 5):
        (logs / f"patina-error-20200101-0000{number:02d}-1.log").write_text("old")
    written = _write_log(ValueError("x"))
    kept = sorted(logs.glob("patina-error-*.log"))
    assert len(kept) == KEPT_LOGS
    assert kept[-1] == written
