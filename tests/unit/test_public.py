"""The library as another program uses it."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trainer
from trainer import Bank, PatinaError, RunConfig, generate, load_base
from trainer.bases.base import Base
from trainer.child import environment

SPEAK_FOR_THEMSELVES = {"bank", "base", "file", "layout", "name", "path"}
OFFERED = ["Bank", "PatinaError", "RunConfig", "__version__", "attach", "generate", "load_base", "read_style", "train"]


def test_what_is_offered_is_known_and_says_what_it_is() -> None:
    assert trainer.__all__ == [*OFFERED, "write_style"]
    for name in set(trainer.__all__) - {"__version__"}:
        thing = getattr(trainer, name)
        told = inspect.getdoc(thing)
        assert told, name
        if inspect.isfunction(thing):
            assert "Raises:" in told, name
            for parameter in inspect.signature(thing).parameters:
                assert re.search(rf"\b{parameter}\b", told) or parameter in SPEAK_FOR_THEMSELVES, (
                    f"{name} does not explain {parameter}"
                )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        _ = trainer.tarin


def example(repository: Path) -> str:
    """The README's program."""
    (code,) = re.findall(
        r"```python\n(from trainer import .*?)```", (repository / "README.md").read_text("utf-8"), re.S
    )
    return str(code)


def test_the_readmes_example_is_short_enough_to_be_read(repository: Path) -> None:
    assert len([line for line in example(repository).splitlines() if line]) <= 15


@pytest.mark.slow
def test_the_readmes_example_runs(repository: Path, sample_data_dir: Path, tmp_path: Path) -> None:
    code, shorter = example(repository), '{"steps": 2, "threads": 1}, "samples": {"steps": 2, "prompts": ["cat"]}'
    assert code.count('{"preset": "quick"}') == 1
    images = tmp_path / "sample_data" / "high_contrast"
    images.mkdir(parents=True)
    for path in sorted((sample_data_dir / "high_contrast").glob("*.png"))[:4]:
        shutil.copy(path, images)
    program = tmp_path / "example.py"
    program.write_text(code.replace('{"preset": "quick"}', shorter), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Finished" in done.stdout or "verified" in done.stdout
    with Image.open(tmp_path / "cat-0.png") as base, Image.open(tmp_path / "cat-2.png") as style:
        assert base.tobytes() != style.tobytes(), "at strength 1 the style is seen"


def test_prompts_and_strengths_make_a_picture_each(base: Base) -> None:
    bank = Bank(base.roots)
    try:
        bank.add("a", rank=2, seed=1)
        bank.add("b", rank=2, seed=2)
        settings = {"steps": 1, "width": 64, "height": 64}
        pictures = generate(base, bank, ["cat", "dog"], strengths=(0.0, (1.0, 0.5)), **settings)
        assert [picture.size for picture in pictures] == [(64, 64)] * 4
        (alone,) = generate(base, bank, "dog", strengths=[0], **settings)
        # Another batch rounds otherwise; a level or two of 255 is no other picture.
        levels = np.abs(np.asarray(alone, dtype=int) - np.asarray(pictures[2], dtype=int)).max()
        assert levels <= 2, "what has not learned draws as the base does"
        with pytest.raises(PatinaError, match="3 strengths were given, but the bank holds 2 adapters"):
            generate(base, bank, "cat", strengths=[(1, 1, 1)])
        with pytest.raises(PatinaError, match=r"steps is 0, but should be at least 1\."):
            generate(base, bank, "cat", steps=0)
        with pytest.raises(PatinaError, match="There is no setting stesp; there are steps, guidance"):
            generate(base, bank, "cat", stesp=3)
    finally:
        bank.detach()


def test_settings_may_be_a_mapping_and_are_checked_as_ever(tmp_path: Path) -> None:
    with pytest.raises(PatinaError, match=r"adapter\.rank is 0"):
        trainer.train({"adapter": {"rank": 0}}, tmp_path / "run")
    with pytest.raises(PatinaError, match=r"data\.images is empty"):
        trainer.train(RunConfig(), tmp_path / "run")


def test_a_device_that_is_not_there_is_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(PatinaError, match="cuda"):
        load_base(device="cuda")
