"""Masks in the studio: they come beside images or are their transparency, and a run finds those that it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from studio_parts import Parts

from trainer.data.dataset import Dataset
from trainer.data.doctor import Masks, examine


def mask_file(folder: Path, name: str, size: tuple[int, int] = (128, 128)) -> Path:
    """White in its left half; in a folder of its own, as a browser's upload puts every file."""
    file = folder / f"of {name}" / f"{name}-mask.png"
    file.parent.mkdir(exist_ok=True)
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    mask.save(file)
    return file


@pytest.fixture
def files(uploads: list[Path], tmp_path: Path) -> list[Path]:
    """Five images, one of them transparent in its lower half, and a mask of another."""
    picture = Image.open(uploads[3]).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 64, 128, 128))
    picture.save(uploads[3])
    return [*uploads, mask_file(tmp_path, "blue-car")]


@pytest.fixture
def draft(parts: Parts, files: list[Path]) -> str:
    run_id = parts.drafts.create({"trigger": "shape style"})
    report = parts.drafts.add_images(run_id, files)
    assert (len(report.added), report.refused) == (5, ())
    return run_id


def masked(parts: Parts, run_id: str) -> dict[str, str]:
    """Image -> what is said of its mask."""
    images = parts.drafts.view(run_id).images
    return {image.name: f.message for image in images for f in image.findings if f.kind == "mask"}


def as_a_run_reads_it(parts: Parts, run_id: str, masks: Masks) -> Dataset:
    parts.drafts.update(run_id, {"data.masks": masks})
    config = parts.drafts.ready(run_id)
    return examine(Path(config.data.images), resolution=128, multiple=8, masks=config.data.masks)


def light(file: Path | None) -> Image.Image:
    assert file is not None
    with Image.open(file) as opened:
        return opened.convert("L")


def test_a_mask_is_no_image_and_a_run_reads_those_that_it_asks_for(parts: Parts, draft: str, tmp_path: Path) -> None:
    assert masked(parts, draft) == {"blue-car.png": "has a mask, blue-car-mask.png"}
    names = {f"{image.id}.png": image.name for image in parts.drafts.view(draft).images}

    def read(masks: Masks) -> dict[str, Image.Image]:
        examples = as_a_run_reads_it(parts, draft, masks).examples
        assert len(examples) == 5
        return {names[example.name]: light(example.mask) for example in examples if example.mask}

    found = read("files")
    assert list(found) == ["blue-car.png"]
    assert found["blue-car.png"].tobytes() == light(tmp_path / "of blue-car" / "blue-car-mask.png").tobytes()
    both = read("alpha")
    assert masked(parts, draft)["green_tree.png"] == "has a mask, its transparency"
    opaque = both["green_tree.png"]
    assert (opaque.getpixel((5, 5)), opaque.getpixel((5, 120))) == (255, 0)
    assert both["blue-car.png"].tobytes() == found["blue-car.png"].tobytes()
    assert read("off") == {}
    assert masked(parts, draft) == {}


def test_a_mask_follows_its_image_into_a_part_and_into_another_run(parts: Parts, draft: str) -> None:
    (car,) = [image for image in parts.drafts.view(draft).images if image.name == "blue-car.png"]

    def mask(run_id: str) -> Image.Image:
        examples = as_a_run_reads_it(parts, run_id, "files").examples
        return light(next(example.mask for example in examples if example.name == f"{car.id}.png"))

    whole = mask(draft)
    parts.drafts.crop_image(draft, car.id, (0.25, 0, 1, 0.5))
    assert mask(draft).tobytes() == whole.crop((32, 0, 128, 64)).tobytes()
    other = parts.drafts.duplicate(draft)
    assert mask(other).tobytes() == mask(draft).tobytes()
    for run_id in (draft, other):
        parts.drafts.crop_image(run_id, car.id, None)
        assert mask(run_id).tobytes() == whole.tobytes()
    parts.drafts.remove_image(draft, car.id)
    assert not any(example.mask for example in as_a_run_reads_it(parts, draft, "files").examples)


def test_a_mask_finds_its_image_later_or_says_why_it_is_left_out(parts: Parts, draft: str, tmp_path: Path) -> None:
    by_name = {image.name: image.id for image in parts.drafts.view(draft).images}
    assert parts.drafts.add_images(draft, [mask_file(tmp_path, "house2")]).refused == ()
    assert masked(parts, draft)["house2.png"] == "has a mask, house2-mask.png"
    parts.drafts.crop_image(draft, by_name["red apple.png"], (0, 0, 0.5, 0.5))
    small = mask_file(tmp_path, "IMG_0042", (64, 64))
    refused = dict(parts.drafts.add_images(draft, [small, mask_file(tmp_path, "red apple")]).refused)
    assert refused["IMG_0042-mask.png"].endswith(
        "is 64 x 64 pixels, but its image is 128 x 128: give the mask the image's size."
    )
    assert "use the whole image" in refused["red apple-mask.png"]
    # Called like a mask, but of no image that is there.
    assert len(parts.drafts.add_images(draft, [mask_file(tmp_path, "carnival")]).added) == 1


def test_a_run_of_the_command_line_is_copied_with_its_masks(parts: Parts, files: list[Path]) -> None:
    for file in files[5:]:
        file.rename(files[0].parent / file.name)
    run_id = parts.drafts.create({"data.images": str(files[0].parent)})
    other = parts.drafts.duplicate(run_id)
    assert masked(parts, other) == {"blue-car.png": "has a mask, blue-car-mask.png"}
    assert len(parts.drafts.view(other).images) == 5
