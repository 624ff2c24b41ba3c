"""A base of Stable Diffusion 1's exact architecture with tiny widths, pictures, and a run of a second or two."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from trainer.config import parse
from trainer.training.run_folder import RunFolder

STEPS = 6
PICTURES = 3


def tiny_base(folder: Path) -> Path:
    """Write the base in diffusers' layout; its random weights are always the same."""
    import torch

    from benchmarks.random_base import random_base, write_folder

    return write_folder(random_base("sd1", device=torch.device("cpu"), dtype=torch.float32, tiny=True), folder)


def pictures(folder: Path, count: int = PICTURES) -> list[Path]:
    """Different drawings of 64 x 64 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(count):
        image = Image.new("RGB", (64, 64), "white")
        box = (4 + 8 * (index % 4), 6 + 4 * (index // 4), 34 + 6 * (index % 5), 40 + 3 * (index % 7))
        ImageDraw.Draw(image).ellipse(box, fill=(60 * index % 256, 90, 200), outline="black", width=1 + index % 3)
        files.append(folder / f"ball {index}.png")
        image.save(files[-1])
    return files


@cache
def bench_at(folder: Path) -> Bench:
    """The one bench of a folder: several rows share its base and its undisturbed run."""
    return Bench(folder)


@dataclass(frozen=True)
class Bench:
    """Base, pictures and settings below a folder."""

    path: Path

    @cached_property
    def base_folder(self) -> Path:
        return tiny_base(self.path / "base")

    @cached_property
    def images(self) -> list[Path]:
        return pictures(self.path / "images")

    @cached_property
    def base(self) -> Any:
        """The base, opened in this process."""
        import torch

        from trainer.bases.open import load_base
        from trainer.config import BaseConfig

        torch.set_num_threads(1)
        source = BaseConfig(source=str(self.base_folder))
        return load_base(source, device=torch.device("cpu"), dtype=torch.float32)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Settings by dotted path of a run that takes a second or two."""
        return {
            "name": "Ball",
            "trigger": "ball style",
            "base.source": str(self.base_folder),
            "data.resolution": 64,
            "adapter.rank": 2,
            "optim.batch_size": 1,
            "train.steps": STEPS,
            "train.checkpoint_every": 2,
            "train.threads": 1,
            "samples.every": 0,
            "samples.steps": 1,
            "samples.prompts": ["a ball"],
            "judging.enabled": False,
            **changes,
        }

    def new_run(self, name: str, **changes: Any) -> RunFolder:
        """A run folder ready for ``patina train --resume``."""
        from trainer.config import overlay
        from trainer.training.run import create

        values = {**self.settings(**changes), "data.images": str(self.images[0].parent)}
        return create(parse(overlay({}, values)), self.path / "runs" / name)

    def spawn(self, folder: RunFolder, before: Callable[[], object] = lambda: None) -> int:
        """Train a run on the command line in a fork of this process, which has all libraries loaded already.

        Args:
            before: called in the new process first.

        Returns:
            its process id; what it says lies in ``said.log`` beside the run.
        """
        base = self.base
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            log = os.open(folder.path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            # Whatever stands there now (a test's capture) is the parent's.
            sys.stdout, sys.stderr = (open(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))  # noqa: SIM115
            from trainer.cli import app
            from trainer.training import run

            run.open_base = lambda config, emit, accelerator: base
            before()
            app(["train", "--resume", str(folder.path)], prog_name="patina", standalone_mode=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def train(self, folder: RunFolder, before: Callable[[], object] = lambda: None) -> int:
        """`spawn`, and wait; returns the exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.spawn(folder, before), 0)[1])

    @cached_property
    def whole(self) -> RunFolder:
        """A run that nothing disturbed; the measure of all others."""
        folder = self.new_run("whole")
        code = self.train(folder)
        assert code == 0, folder.path.with_suffix(".log").read_text(encoding="utf-8")
        return folder
