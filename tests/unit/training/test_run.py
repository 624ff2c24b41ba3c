from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from gates import Gates
from PIL import Image
from safetensors import safe_open

from trainer.adapters.methods import METHODS
from trainer.atomic import replace_file
from trainer.bases.base import Base
from trainer.config import parse
from trainer.errors import ConfigError, DatasetError, ImagesChanged, PatinaError, RunError
from trainer.events import Event, Failed, Finished, Found, Notice, Planned, Sampled, Saved, Started, Validated
from trainer.studio.worker.draw import checkpoint_as_file
from trainer.styles.consumers.programs import PROGRAMS
from trainer.styles.metadata import sshs_model_hash
from trainer.styles.read import read_style
from trainer.styles.write import laid_out
from trainer.training.pausing import Session, Signal, Uncontrolled
from trainer.training.run import create, train
from trainer.training.run_folder import RunFolder


class PauseAt:
    def __init__(self, step: int, signal: Signal = Signal.PAUSE) -> None:
        self.step, self.signal = step, signal

    def between_steps(self, session: Session) -> Signal:
        return self.signal if session.step >= self.step else Signal.GO


def run(settings: dict, path: Path, base: Base | None, control: object = None) -> tuple[RunFolder, list[Event]]:
    said: list[Event] = []
    folder = RunFolder(path) if (path / "config.toml").exists() else create(parse(settings), path)
    train(folder, emit=said.append, control=control or Uncontrolled(), base=base)  # type: ignore[arg-type]
    return folder, said


def of_type(events: list[Event], kind: type[Event]) -> list:
    return [event for event in events if isinstance(event, kind)]


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_a_run_leaves_everything_that_was_promised(settings: dict, base: Base, tmp_path: Path) -> None:
    settings["data"]["validation_share"] = 0.34
    settings["samples"]["every"] = 2
    folder, said = run(settings, tmp_path / "run", base)

    assert of_type(said, Found)[0].images == 6
    planned = of_type(said, Planned)[0]
    assert (planned.images, planned.held_out, planned.steps, planned.layers) == (4, 2, 4, 70)
    assert planned.seconds > 0
    assert planned.trainable_parameters == sum(
        safe_open(folder.adapter_file, "pt").get_tensor(key).numel()
        for key in safe_open(folder.adapter_file, "pt").keys()  # noqa: SIM118
        if not key.endswith(".alpha")
    )
    assert [event.step for event in of_type(said, Sampled)] == [0, 2, 4]
    assert [event.step for event in of_type(said, Saved)] == [2, 4]
    assert [event.step for event in of_type(said, Validated)] == [2, 4]
    finished = of_type(said, Finished)[0]
    assert said[-1] is finished
    assert any("70 of 70 layers" in tick for tick in finished.verified)
    assert any("same picture" in tick for tick in finished.verified)
    assert finished.opens[0] == "Opens in diffusers and Patina only."
    (before,) = [notice.text for notice in of_type(said, Notice) if "A1111" in notice.text]
    assert before in finished.opens, "it was said before the training"
    assert said.index(next(e for e in said if isinstance(e, Notice) and e.text == before)) < said.index(planned)
    for event in of_type(said, Sampled):
        with Image.open(folder.path / event.path) as picture:
            assert "Steps: 2" in picture.text["parameters"]
    assert folder.sheet_file.is_file()
    assert [event.type for event in folder.events()] == [e.type for e in said if e.type != "phase" or e.total == 0]


def test_the_file_says_how_it_was_made(settings: dict, base: Base, tmp_path: Path) -> None:
    folder, _ = run(settings, tmp_path / "run", base)
    facts = metadata(folder.adapter_file)
    assert facts["ss_output_name"] == facts["modelspec.title"] == "ink"
    assert facts["ss_network_dim"] == "4"
    assert float(facts["ss_network_alpha"]) == 4
    assert facts["ss_steps"] == "4"
    assert facts["modelspec.trigger_phrase"] == "ink style"
    assert facts["patina.base_sha256"] == base.identity
    assert facts["sshs_model_hash"] == sshs_model_hash(folder.adapter_file)
    assert json.loads(facts["ss_tag_frequency"])["ink"]["ink style"] == 6
    assert "images" not in json.loads(facts["patina.config"])["data"], "nobody's folder names leave the machine"
    assert json.loads(facts["ss_dataset_dirs"]) == {"ink": {"n_repeats": 1, "img_count": 6}}
    assert facts["ss_base_model_version"] == "patina_icons_v1", "no tool may take it for Stable Diffusion 1"
    assert (facts["ss_v2"], facts["ss_sd_model_name"]) == ("False", "bundled")
    assert (facts["ss_optimizer"], facts["ss_num_batches_per_epoch"]) == ("adamw", "3")
    assert not [key for key, value in facts.items() if str(tmp_path) in value]
    assert facts["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")


def test_what_cannot_be_proved_in_the_end_is_refused_in_the_beginning(
    settings: dict, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No layer of a UNet of today is lost by diffusers in our files; a version that loses some is stood in for."""
    none = replace(next(each for each in PROGRAMS if each.title == "diffusers"), names=lambda path, family: iter(()))
    monkeypatch.setattr("trainer.styles.consumers.opening.PROGRAMS", (none,))
    with pytest.raises(ConfigError, match="'all-linear' cannot be trained: diffusers does not open it: there is no"):
        run(settings, tmp_path / "run", base)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_same_seed_gives_the_same_file_and_another_seed_another(settings: dict, base: Base, tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        settings["train"]["seed"] = seed
        folder, _ = run(settings, tmp_path / name, base)
        hashes.append(sshs_model_hash(folder.adapter_file))
    assert hashes[0] == hashes[1] != hashes[2]


def test_paused_and_resumed_is_the_same_as_never_paused(settings: dict, base: Base, tmp_path: Path) -> None:
    """Paused before the first step, at one without a checkpoint of its own, and right before the last."""
    settings["optim"]["ema_decay"] = 0.9
    settings["adapter"]["dropout"] = 0.1
    whole, _ = run(settings, tmp_path / "whole", base)
    reached = None
    for pause_at in (0, 1, 3):
        parted, said = run(settings, tmp_path / "parted", base, PauseAt(pause_at))
        assert said[-1].type == "interrupted"
        assert not parted.adapter_file.exists()
        assert reached is None or of_type(said, Started)[0].step == reached
        reached = pause_at
    _, said = run(settings, tmp_path / "parted", base)
    assert of_type(said, Started)[0].step == 3
    assert sshs_model_hash(parted.adapter_file) == sshs_model_hash(whole.adapter_file)


@pytest.mark.parametrize(
    "adapter",
    [
        {"method": "dora"},
        {"method": "adalora"},
        {"method": "vera"},
        {"method": "full"},
        {"method": "bitfit"},
        {"method": "bottleneck"},
        {"method": "prefix"},
        {"method": "textual-inversion"},
        {"method": "lora-fa", "init": "pissa"},
        {"method": "lora+", "rate_ratio": 4.0},
    ],
    ids=lambda adapter: adapter["method"],
)
def test_whatever_the_method_a_run_goes_on_and_its_checkpoints_are_its_file(
    settings: dict, adapter: dict, base: Base, tmp_path: Path
) -> None:
    settings["adapter"].update(adapter)
    settings["optim"]["ema_decay"] = 0.9
    layout = METHODS[adapter["method"]].layouts[-1]
    settings["export"] = {"format": layout}
    whole, said = run(settings, tmp_path / "whole", base)
    proof = "same picture" if layout == "diffusers" else "read by: It "
    assert any(proof in tick for tick in of_type(said, Finished)[0].verified)
    assert (whole.peft_folder / "adapter_model.safetensors").is_file() == (adapter["method"] == "vera")
    if layout == "kohya":
        assert any(METHODS[adapter["method"]].readers in notice.text for notice in of_type(said, Notice))
    run(settings, tmp_path / "parted", base, PauseAt(3))
    parted, _ = run(settings, tmp_path / "parted", base)
    assert sshs_model_hash(parted.adapter_file) == sshs_model_hash(whole.adapter_file)
    written = read_style(whole.adapter_file).layers
    drawn = checkpoint_as_file(whole.checkpoints / "step-000004").layers
    assert written.keys() == drawn.keys()
    for path, layer in laid_out(drawn, layout).items():
        assert torch.equal(layer.down, written[path].down)
        assert torch.equal(layer.up, written[path].up)
    last = [list(layer.extra.values())[-1] if layer.extra else layer.up for layer in written.values()]
    assert any(float(tensor.abs().max()) > 0 for tensor in last)


def test_a_damaged_checkpoint_costs_steps_but_not_the_run(settings: dict, base: Base, tmp_path: Path) -> None:
    whole, _ = run(settings, tmp_path / "whole", base)
    torn, _ = run(settings, tmp_path / "torn", base, PauseAt(3))
    victim = torn.checkpoints / "step-000003" / "optimizer.safetensors"
    victim.write_bytes(victim.read_bytes()[:100])
    _, said = run(settings, tmp_path / "torn", base)
    assert "step-000003" in of_type(said, Notice)[-1].text
    assert of_type(said, Started)[0].step == 2
    assert sshs_model_hash(torn.adapter_file) == sshs_model_hash(whole.adapter_file)


def test_stop_and_keep_makes_a_finished_file_of_what_was_learned(settings: dict, base: Base, tmp_path: Path) -> None:
    settings["samples"]["every"] = 4
    folder, said = run(settings, tmp_path / "run", base, PauseAt(2, Signal.STOP))
    assert of_type(said, Finished)[0].step == 2
    assert [event.step for event in of_type(said, Sampled)] == [0, 2], "the last samples show what the file holds"
    assert metadata(folder.adapter_file)["ss_steps"] == "2"


def test_a_finished_run_is_not_trained_again(settings: dict, base: Base, tmp_path: Path) -> None:
    folder, _ = run(settings, tmp_path / "run", base)
    before = sshs_model_hash(folder.adapter_file)
    _, said = run(settings, tmp_path / "run", base)
    assert not of_type(said, Saved)
    assert sshs_model_hash(folder.adapter_file) == before


def test_the_log_forgets_what_was_done_again(settings: dict, base: Base, tmp_path: Path) -> None:
    folder, _ = run(settings, tmp_path / "run", base, PauseAt(3))
    os.truncate(folder.events_file, folder.events_file.stat().st_size - 5)
    run(settings, tmp_path / "run", base)
    steps = [event.step for event in folder.events() if event.type == "progress"]
    assert steps == sorted(set(steps))
    assert [event.type for event in folder.events()].count("interrupted") == 0


def test_a_folder_with_something_else_is_not_written_into(settings: dict, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="not an empty folder"):
        create(parse(settings), tmp_path)
    create(parse(settings), tmp_path / "new")
    with pytest.raises(RunError, match="--resume"):
        create(parse(settings), tmp_path / "new")


def test_one_process_at_a_time(settings: dict, base: Base, tmp_path: Path) -> None:
    class Second:
        error: PatinaError | None = None

        def between_steps(self, session: Session) -> Signal:
            script = (
                "import sys; from pathlib import Path\n"
                "from trainer.training.run_folder import RunFolder\n"
                "with RunFolder(Path(sys.argv[1])).held(): pass"
            )
            found = subprocess.run(
                [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True, check=False
            )
            self.said = found.stderr
            return Signal.PAUSE

    second = Second()
    run(settings, tmp_path / "run", base, second)
    assert "is being trained by another process" in second.said


def test_an_error_is_in_the_log_with_its_sentence(settings: dict, base: Base, tmp_path: Path) -> None:
    settings["adapter"]["targets"] = "nothing_like_this"
    folder = create(parse(settings), tmp_path / "run")
    said: list[Event] = []
    with pytest.raises(ConfigError, match=r"adapter\.targets"):
        train(folder, emit=said.append, control=Uncontrolled(), base=base)
    assert isinstance(said[-1], Failed)
    assert "adapter.targets" in said[-1].message
    assert not any("._shares." in name for name, _ in base.denoiser.named_parameters())


def test_an_image_that_changed_under_a_run_is_noticed(
    settings: dict, base: Base, image_folder: Path, tmp_path: Path
) -> None:
    import shutil

    images = tmp_path / "images"
    shutil.copytree(image_folder, images)
    settings["data"]["images"] = str(images)
    folder, _ = run(settings, tmp_path / "run", base, PauseAt(1))
    shutil.rmtree(folder.cache)
    Image.new("RGB", (96, 96), "red").save(images / "shape-0.png")
    with pytest.raises(DatasetError, match="shape-0"):
        run(settings, tmp_path / "run", base)


def test_a_run_whose_images_are_gone_goes_on_with_what_it_made_of_them_and_says_so(
    settings: dict, base: Base, image_folder: Path, tmp_path: Path
) -> None:
    import shutil

    images = tmp_path / "images"
    shutil.copytree(image_folder, images)
    settings["data"]["images"] = str(images)
    folder, _ = run(settings, tmp_path / "run", base, PauseAt(1))
    (images / "shape-0.png").unlink()
    Image.new("RGB", (96, 96), "red").save(images / "shape-1.png")
    _, said = run(settings, tmp_path / "run", base)
    (sentence,) = (notice.text for notice in of_type(said, Notice) if notice.level == "warning")
    assert "shape-0.png is gone, shape-1.png was changed" in sentence
    assert folder.adapter_file.is_file()


def test_a_run_whose_images_changed_stops_or_goes_on_without_them_when_that_is_wished(
    settings: dict, base: Base, image_folder: Path, tmp_path: Path
) -> None:
    import shutil

    images = tmp_path / "images"
    shutil.copytree(image_folder, images)
    settings["data"] |= {"images": str(images), "changed_images": "refuse"}
    folder, _ = run(settings, tmp_path / "run", base, PauseAt(1))
    (images / "shape-0.png").unlink()
    with pytest.raises(ImagesChanged, match=r"shape-0\.png is gone.*--changed-images"):
        run(settings, folder.path, base)
    assert of_type(list(folder.events()), Failed)[-1].images_changed
    config = folder.config()
    config.data.changed_images = "leave_out"
    folder.write_config(config)
    _, said = run(settings, folder.path, base)
    assert "without, with 5 images" in " ".join(notice.text for notice in of_type(said, Notice))
    assert folder.adapter_file.is_file()
    assert "shape-0" not in folder.dataset_file.read_text()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_killed_in_the_middle_and_resumed_gives_the_same_file(settings: dict, base: Base, tmp_path: Path) -> None:
    settings["train"] |= {"steps": 30, "checkpoint_every": 4}
    whole, _ = run(settings, tmp_path / "whole", base)
    folder = create(parse(settings), tmp_path / "killed")
    gates = Gates(tmp_path / "gates")
    gates.close(step=10)
    environment = {**os.environ, **gates.environment, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainer", "train", "--resume", str(folder.path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        gates.arrived(step=10)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not folder.adapter_file.exists()
    torch.set_num_threads(1)
    _, said = run(settings, tmp_path / "killed", base)
    assert of_type(said, Started)[0].step == 8
    assert sshs_model_hash(folder.adapter_file) == sshs_model_hash(whole.adapter_file)


def test_what_killed_writes_left_is_cleared_by_whoever_trains_next(settings: dict, base: Base, tmp_path: Path) -> None:
    folder = create(parse(settings), tmp_path / "run")

    class KilledInTheMiddle(BaseException):
        pass

    def write_half(file: BinaryIO) -> None:
        file.write(b"half")
        raise KilledInTheMiddle

    for target in (folder.config_file, folder.adapter_file, folder.samples / "000002-0.png"):
        target.parent.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
            with pytest.raises(KilledInTheMiddle):
                replace_file(target, write_half)
    assert len([path for path in folder.path.rglob(".*") if path.is_file()]) == 3
    (folder.checkpoints / ".step-000002.7.tmp").mkdir(parents=True)
    run(settings, folder.path, base)
    assert list(folder.path.rglob(".*")) == []


def test_a_run_that_learned_nothing_leaves_nothing(settings: dict, tmp_path: Path) -> None:
    folder = create(parse(settings), tmp_path / "run")
    (folder.path / f".{'0' * 16}.{'1' * 32}").write_bytes(b"half")
    folder.cache.mkdir()
    (folder.path / "notes.txt").write_text("mine", encoding="utf-8")
    folder.discard()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]
