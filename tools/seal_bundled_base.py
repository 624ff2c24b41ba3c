"""Write the manifest of the bundled base: the SHA-256 of each of its files. Run it after the weights were replaced.

python tools/seal_bundled_base.py
"""

from __future__ import annotations

import json

from trainer.bases.folder import BUNDLED_FOLDER, MANIFEST, file_sha256


def main() -> None:
    files = sorted(path for path in BUNDLED_FOLDER.rglob("*.*") if path.suffix in {".json", ".safetensors"})
    hashes = {path.relative_to(BUNDLED_FOLDER).as_posix(): file_sha256(path) for path in files if path.name != MANIFEST}
    (BUNDLED_FOLDER / MANIFEST).write_text(json.dumps({"sha256": hashes}, indent=2) + "\n", encoding="utf-8")
    print(f"sealed {len(hashes)} files")


if __name__ == "__main__":
    main()
