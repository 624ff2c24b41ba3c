from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainer.errors import RunError
from trainer.training.checkpoint import Checkpoint, newest, read, save


def made(step: int) -> Checkpoint:
    return Checkpoint(
        step,
        {"a.down": torch.full((2, 3), float(step))},
        {"a.down.exp_avg": torch.zeros(2, 3)},
        {"a.down": torch.ones(2, 3)},
        {"scaler": {}, "average_updates": step},
    )


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    folder = save(made(7), tmp_path, keep=3)
    back = read(folder)
    assert folder.name == "step-000007"
    assert back.step == 7
    assert back.state == {"scaler": {}, "average_updates": 7}
    assert torch.equal(back.adapter["a.down"], torch.full((2, 3), 7.0))
    assert torch.equal(back.average["a.down"], torch.ones(2, 3))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 1_000_000):
        save(made(step), tmp_path, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000003", "step-1000000"]
    found, _ = newest(tmp_path)
    assert found is not None
    assert found.step == 1_000_000


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "no manifest"])
def test_a_torn_checkpoint_is_skipped_with_a_sentence(tmp_path: Path, damage: str) -> None:
    save(made(1), tmp_path, keep=3)
    victim = save(made(2), tmp_path, keep=3) / "adapter.safetensors"
    content = victim.read_bytes()
    match damage:
        case "truncate":
            victim.write_bytes(content[:-4])
        case "flip":
            victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "remove":
            victim.unlink()
        case _:
            (victim.parent / "manifest.json").unlink()
    found, sentences = newest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(sentences) == 1
    assert "step-000002" in sentences[0]


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "nothing") == (None, [])


def test_half_written_ones_are_swept_away(tmp_path: Path) -> None:
    leftover = tmp_path / ".step-000009.123.tmp"
    leftover.mkdir()
    save(made(1), tmp_path, keep=1)
    assert not leftover.exists()


def test_a_disk_that_refuses_is_a_sentence_and_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(made(1), tmp_path, keep=3)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.training.checkpoint.os.fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save(made(2), tmp_path, keep=3)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_a_checkpoint_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": {"../outside": "0"}}', encoding="utf-8")
    with pytest.raises(RunError, match="incomplete"):
        read(tmp_path)
