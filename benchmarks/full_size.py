"""A whole run on a base of full size, without a card: seconds and memory of each of its phases.

    python -m benchmarks.full_size sd1                                      Stable Diffusion 1.5 at 512 px, fp32
    python -m benchmarks.full_size sdxl --precision bf16                    SDXL at 1024 px
    python -m benchmarks.full_size sdxl --precision bf16 --quantize nf4     its denoiser in 4 bits a weight
    python -m benchmarks.full_size sd1 --tiny                               a small model, to see that it works

Weights are random: neither time nor memory depends on their values. The base is written once into --home (2.1 GB; SDXL
6.9 GB). The run is a process of its own, which goes through loading, preflight, training, export and proof as ``patina
train`` does; another one then opens base and file and draws with them. From outside of it is read, 50 times a second,
what main memory it holds; what is mapped from files is part of that, and is told apart. Processor seconds hold on a
busy machine, too.

A run that was interrupted goes on where it stopped when the same command is given again; one that is done is only shown
(--again repeats it).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import psutil

from trainer.bases.quantised import Quantize

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "sample_data" / "streamline"
PICTURES = 3
"""Images that are trained on."""
GIB = 2**30
EVERY = 0.02
"""Seconds between two looks at a process."""
SAID_EVERY = 5
"""Seconds after which it is said how things stand."""


@dataclass
class Row:
    """A phase: seconds by the clock and of processors, and the most bytes that were held in it, in all and without what
    is mapped from files."""

    seconds: float = 0.0
    computed: float = 0.0
    bytes: int = 0
    own_bytes: int = 0


@dataclass
class Watched:
    """What a process did, as seen from outside: its phases, and the most seconds in which it said nothing."""

    rows: dict[str, Row] = field(default_factory=dict)
    silence: float = 0.0


def watched(command: list[str], environment: dict[str, str]) -> Watched:
    """Run a process that says its phases as lines of JSON, and look at its memory until it ends.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    found = Watched()
    phase, seen, computed = "starting", 0, 0.0
    lines: list[str] = []
    heard = since = said = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lines.extend, args=[process.stdout])
        reader.start()
        looked_at = psutil.Process(process.pid)
        while process.poll() is None:
            now = time.perf_counter()
            row = found.rows.setdefault(phase, Row())
            try:
                memory, times = looked_at.memory_info(), looked_at.cpu_times()
            except psutil.Error:
                break
            row.seconds += now - since
            row.computed += times.user + times.system - computed
            row.bytes = max(row.bytes, memory.rss)
            row.own_bytes = max(row.own_bytes, memory.rss - getattr(memory, "shared", 0))
            since, computed = now, times.user + times.system
            while seen < len(lines):
                told, seen = json.loads(lines[seen]), seen + 1
                if phase != "starting":
                    found.silence = max(found.silence, now - heard)
                heard = now
                if told["type"] in ("phase", "progress", "started"):
                    phase = told.get("name", "training")
                elif told["type"] in ("notice", "failed"):
                    say(f"  {told.get('text') or told.get('message')}")
            if now - said > SAID_EVERY:
                said = now
                say(f"  {phase}: {row.seconds:.0f} s, {memory.rss / GIB:.1f} GiB")
            time.sleep(EVERY)
        reader.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return found


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured, and where it lies."""

    key: str
    home: Path
    precision: str
    quantize: Quantize | None
    side: int
    targets: str
    steps: int
    threads: int
    levels: int | None
    limit_gib: float | None
    tiny: bool

    @property
    def name(self) -> str:
        told = [self.key, str(self.side), self.precision, self.quantize or "", self.targets, f"{self.threads}-threads"]
        told += [f"{self.levels}-levels"] if self.levels else []
        told += [f"within-{self.limit_gib:g}"] if self.limit_gib else []
        return "-".join(filter(None, [*told, "tiny" if self.tiny else ""]))

    @property
    def base(self) -> Path:
        return self.home / f"base-{self.key}{'-tiny' if self.tiny else ''}"

    @property
    def run(self) -> Path:
        return self.home / "runs" / self.name

    @property
    def result(self) -> Path:
        return self.home / f"{self.name}.json"

    def settings(self) -> dict[str, object]:
        memory = {"checkpoint_levels": self.levels, "limit_gib": self.limit_gib}
        return {
            "name": self.name,
            "trigger": "streamline style",
            "base": {"source": str(self.base), "quantize": self.quantize or "off"},
            "data": {"images": str(self.home / "images"), "resolution": self.side},
            "adapter": {"targets": self.targets, "rank": 8},
            "optim": {"batch_size": 1},
            "train": {
                "steps": self.steps,
                "precision": self.precision,
                "threads": self.threads,
                "device": "cpu",
                "checkpoint_every": 1,
            },
            "samples": {"prompts": ["a fox"], "steps": 1, "every": 0},
            "judging": {"enabled": False},
            "memory": {name: value for name, value in memory.items() if value is not None},
        }

    def child(self, part: str) -> Watched:
        # Another home for each run: what was measured for one before would not be measured again.
        environment = {**os.environ, "PATINA_HOME": str(self.run), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "benchmarks.full_size", "--part", part, str(self.run)]
        return watched([*command, "--threads", str(self.threads)], environment)


def prepared(case: Case) -> None:
    """Base and images, where they are not there yet."""
    wanted = sorted(IMAGES.glob("*.png"))[:PICTURES]
    (case.home / "images").mkdir(parents=True, exist_ok=True)
    for image in wanted:
        for file in IMAGES.glob(f"{image.stem}.*"):
            shutil.copyfile(file, case.home / "images" / file.name)
    if case.base.is_dir():
        return
    say(f"writing {case.base}, once")
    import torch

    from benchmarks.random_base import random_base, write_folder

    half = case.base.with_name(f"{case.base.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    # As the public ones are mostly stored.
    made = random_base(case.key, device=torch.device("cpu"), dtype=torch.float16, tiny=case.tiny)
    made.vae.half()
    write_folder(made, half).rename(case.base)


def measured(case: Case) -> dict[str, Watched]:
    """The run and its reopening, each in a process of its own."""
    from trainer.config import parse
    from trainer.training.run import create
    from trainer.training.run_folder import RunFolder

    if not RunFolder(case.run).exists():
        create(parse(case.settings()), case.run)
    return {"run": case.child("train"), "reopened": case.child("reopen")}


def train_here(run: Path) -> None:
    """What the first child does."""
    from trainer.bases.quiet import quiet_libraries
    from trainer.events import Event
    from trainer.signs import SignsOfLife
    from trainer.training.pausing import Uncontrolled
    from trainer.training.run import train
    from trainer.training.run_folder import RunFolder

    def told(event: Event) -> None:
        say(event.line())

    with quiet_libraries(), SignsOfLife(told) as signs:
        train(RunFolder(run), emit=signs, control=Uncontrolled())


def reopen_here(run: Path, threads: int) -> None:
    """What the second child does: whoever gets base and file draws with them.

    Raises:
        RuntimeError: the style changes nothing.
    """
    import torch

    from trainer.adapters.bank import Bank
    from trainer.bases.open import load_base
    from trainer.hardware import pick_dtype, set_up_threads
    from trainer.preview.generate import draw_latents
    from trainer.preview.order import PreviewRow, PreviewSettings
    from trainer.styles.fit import attach
    from trainer.styles.read import read_style
    from trainer.training.run_folder import RunFolder

    def phase(name: str) -> None:
        say(json.dumps({"type": "phase", "name": name}))

    phase("loading")
    folder = RunFolder(run)
    config, device = folder.config(), torch.device("cpu")
    set_up_threads(threads)
    base = load_base(config.base, device=device, dtype=pick_dtype(device, config.train.precision))
    phase("attaching")
    bank = Bank(base.roots)
    attach(bank, "style", read_style(folder.adapter_file))
    phase("drawing")
    rows = [PreviewRow(prompt=f"a fox, {config.trigger}", strengths=(strength,)) for strength in (0.0, 1.0)]
    plain, styled = draw_latents(base, bank, rows, PreviewSettings(steps=1, guidance=1.0))
    if not torch.isfinite(styled).all() or torch.equal(plain, styled):
        raise RuntimeError("the style changes nothing, or makes numbers that are none")


def table(results: dict[str, Watched]) -> Iterator[str]:
    """The phases as a Markdown table."""
    yield "| phase | seconds | of processors | peak memory, GiB | of it not mapped from files |"
    yield "|---|---:|---:|---:|---:|"
    for part, found in results.items():
        for phase, row in found.rows.items():
            name = phase if part == "run" else f"{part}: {phase}"
            yield f"| {name} | {_cells(row)} | {row.own_bytes / GIB:.2f} |"
    rows = results["run"].rows.values()
    whole = Row(sum(row.seconds for row in rows), sum(row.computed for row in rows), max(row.bytes for row in rows))
    yield f"| the whole run | {_cells(whole)} | |"
    yield f"\nLongest silence: {results['run'].silence:.1f} s."


def _cells(row: Row) -> str:
    return f"{row.seconds:.0f} | {row.computed:.0f} | {row.bytes / GIB:.2f}"


def kept(case: Case, results: dict[str, Watched]) -> None:
    case.result.write_text(json.dumps({part: asdict(found) for part, found in results.items()}, indent=1))


def known(case: Case) -> dict[str, Watched]:
    stored = json.loads(case.result.read_text())
    return {
        part: Watched({phase: Row(**row) for phase, row in found["rows"].items()}, found["silence"])
        for part, found in stored.items()
    }


def say(*lines: str) -> None:
    """Print at once, whoever reads."""
    for line in lines:
        print(line, flush=True)


def case_of(arguments: list[str] | None) -> tuple[Case, bool]:
    """What was asked for, and whether it is to be measured again."""
    from trainer.hardware import physical_cores

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("family", choices=("sd1", "sdxl"))
    options.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options.add_argument("--quantize", choices=get_args(Quantize))
    options.add_argument("--side", type=int, help="pixels; otherwise the family's own side")
    options.add_argument("--targets", default="attention", help="which layers learn; 'attention': 128 of SD1.5")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--threads", type=int, default=physical_cores())
    options.add_argument("--checkpoint-levels", type=int, help="levels that compute twice")
    options.add_argument("--limit-gib", type=float, help="let the run choose what fits so much")
    options.add_argument("--home", type=Path, default=Path("full-size"), help="where base and runs lie")
    options.add_argument("--again", action="store_true")
    options.add_argument("--tiny", action="store_true")
    asked = options.parse_args(arguments)
    side = asked.side or (64 if asked.tiny else {"sd1": 512, "sdxl": 1024}[asked.family])
    case = Case(
        key=asked.family,
        home=asked.home.resolve(),
        precision=asked.precision,
        quantize=asked.quantize,
        side=side,
        targets=asked.targets,
        steps=asked.steps,
        threads=asked.threads,
        levels=asked.checkpoint_levels,
        limit_gib=asked.limit_gib,
        tiny=asked.tiny,
    )
    return case, asked.again


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; or, asked for a part, be the process that is measured."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["--part"]:
        part, run, threads = given[1], Path(given[2]), int(given[4])
        if part == "train":
            train_here(run)
        else:
            reopen_here(run, threads)
        return
    case, again = case_of(given)
    if again:
        case.result.unlink(missing_ok=True)
        shutil.rmtree(case.run, ignore_errors=True)
    say(case.name)
    if not case.result.is_file():
        prepared(case)
        kept(case, measured(case))
    say("", *table(known(case)))


if __name__ == "__main__":
    main()
