"""Pack a trained run's base for shipping: fp16 weights in small files, a model card, a contact sheet, SHA-256s.

    python -m tools.base.pack --run RUN --out FOLDER --measurements measurements.json

FOLDER then is what `trainer/bases/bundled` holds: diffusers reads it as a pipeline, and Patina compares its files
with ``manifest.json`` when it opens the base.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tools.base import model_folder
from tools.base.card import write_card
from tools.base.measure import generate
from tools.base.model_folder import Model
from tools.base.subjects import KNOWN_SUBJECTS, SHEET_PROMPTS

MANIFEST = "manifest.json"
MOST_BYTES = 60_000_000
LARGEST_FILE = 16 * 2**20
SHEET = "sheet.png"
SHEET_COLUMNS = 8
KNOWN = "subjects.json"
"""What the base knows, as one would prompt it: a sorted JSON list."""


def pack(run_folder: Path, out: Path, *, measurements: dict[str, Any], sheet: bool = True, remarks: str = "") -> Path:
    """Write a run's base to ``out`` as it ships, its card with ``remarks``.

    Raises:
        FileExistsError: ``out`` is not empty.
        ValueError: the weights are larger than the product carries, or one of them does not fit into fp16.
    """
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name a new folder.")
    model = model_folder.load(run_folder / "base")
    check_fits_half(model)
    model_folder.save(model, out, dtype=torch.float16)
    check_sizes(out)
    # The sheet shows the weights that ship, after their rounding.
    shipped = model_folder.load(out)
    if sheet:
        contact_sheet(rounded(generate(shipped, SHEET_PROMPTS))).save(out / SHEET, optimize=True)
    write_card(shipped, run_folder, out, measurements=measurements, sheet=SHEET if sheet else None, remarks=remarks)
    subjects = json.dumps(sorted(KNOWN_SUBJECTS), indent=1, ensure_ascii=False)
    (out / KNOWN).write_text(subjects + "\n", encoding="utf-8")
    seal(out)
    return out


def check_fits_half(model: Model) -> None:
    """Refuse weights that fp16 cannot hold.

    Raises:
        ValueError: names the tensor.
    """
    for name, part in (("vae", model.vae), ("text_encoder", model.text_encoder), ("unet", model.unet)):
        for key, value in part.state_dict().items():
            if not bool(torch.isfinite(value.half()).all()):
                raise ValueError(f"{name} {key} does not fit into fp16: its largest value is {value.abs().max():.3g}")


def check_sizes(folder: Path) -> None:
    """Refuse weights that are too large to ship.

    Raises:
        ValueError: says how large they are.
    """
    sizes = {path: path.stat().st_size for path in folder.rglob("*.safetensors")}
    if sum(sizes.values()) > MOST_BYTES:
        raise ValueError(f"the weights take {sum(sizes.values())} bytes; at most {MOST_BYTES} may ship")
    for path, size in sizes.items():
        if size > LARGEST_FILE:
            raise ValueError(f"{path.name} has {size} bytes; a file may have {LARGEST_FILE}")


def seal(folder: Path) -> None:
    """Write the manifest: the SHA-256 of every file that loading reads."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".json", ".safetensors"})
    hashes = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != MANIFEST
    }
    (folder / MANIFEST).write_text(json.dumps({"sha256": hashes}, indent=2) + "\n", encoding="utf-8")


def rounded(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3) at every sixth brightness, nearly white made white: half the bytes of a PNG, and no eye
    sees it. A palette of 256 colours would show its steps in every shade.
    """
    coarse = np.clip((images.astype(int) + 3) // 6 * 6, 0, 255)
    nearly_white = images.min(axis=3, keepdims=True) >= 250
    return np.where(nearly_white, 255, coarse).astype(np.uint8)


def contact_sheet(images: NDArray[np.uint8], *, columns: int = SHEET_COLUMNS) -> Image.Image:
    """Pictures (N, H, W, 3) in rows of ``columns``, on white."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * height, (index % columns) * width
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of tools.base.train")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the base")
    parser.add_argument("--measurements", type=Path, help="JSON file of tools.base.measure")
    parser.add_argument("--remarks", type=Path, help="Markdown for the card: what was tried, what the pictures show")
    chosen = parser.parse_args(arguments)
    found = json.loads(chosen.measurements.read_text(encoding="utf-8")) if chosen.measurements else {}
    remarks = chosen.remarks.read_text(encoding="utf-8") if chosen.remarks else ""
    print(f"packed {pack(chosen.run, chosen.out, measurements=found, remarks=remarks)}")


if __name__ == "__main__":
    main()
