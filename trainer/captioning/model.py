"""A model that writes captions, opened: transformers' own classes, one image at a time, always the same words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainer.bases.parts import first_line
from trainer.bases.placement import is_out_of_memory
from trainer.bases.quiet import quiet_libraries
from trainer.captioning.writers import Length, kind_of, require_length
from trainer.errors import BaseError, DeviceError
from trainer.hardware import pick_dtype

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_TOKENS: dict[Length, int] = {"short": 40, "long": 160}
"""Words of a caption, roughly; CLIP reads 75 tokens in a window."""
BEAMS = 3
NO_REPEAT = 3
"""Words in a row that no caption has twice: BLIP sometimes goes round in circles."""
_TASKS: dict[Length, str] = {"short": "<CAPTION>", "long": "<DETAILED_CAPTION>"}
_TOKEN = re.compile(r"\[[A-Z]+\]|</?s>|<pad>")


class CaptionModel:
    """BLIP or Florence-2.

    Args:
        folder: with ``config.json``, safetensors, and the processor's files; nothing in it is ever run.
        device: where it computes; half precision on a card that can.

    Raises:
        BaseError: it is no such model, or does not fit transformers' class.
        DeviceError: memory ran out.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.kind = kind_of(folder)
        self._dtype = pick_dtype(device, "auto")
        with quiet_libraries():
            self._processor, self._model = self._opened()

    def describe(self, picture: Image, length: Length = "short") -> str:
        """What an RGB image shows, on one line.

        Raises:
            ConfigError: this kind of model does not write that length.
            DeviceError: memory ran out.
        """
        require_length(self.kind, length)
        asked = {} if self.kind == "blip" else {"text": _TASKS[length]}
        given = self._processor(images=picture, return_tensors="pt", **asked)
        inputs = {name: self._placed(tensor) for name, tensor in given.items()}
        with torch.inference_mode(), _short_of_memory(self.folder):
            tokens = self._model.generate(
                **inputs,
                max_new_tokens=MOST_TOKENS[length],
                num_beams=BEAMS,
                no_repeat_ngram_size=NO_REPEAT,
                do_sample=False,
            )
        text = self._processor.batch_decode(tokens, skip_special_tokens=True)[0].replace("\ufffd", " ")
        return " ".join(_TOKEN.sub(" ", text).split())

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, self._dtype if tensor.is_floating_point() else tensor.dtype)

    def _opened(self) -> tuple[Any, Any]:
        from transformers import (
            BlipForConditionalGeneration,
            BlipProcessor,
            Florence2ForConditionalGeneration,
            Florence2Processor,
        )

        classes: dict[str, tuple[Any, Any]] = {
            "blip": (BlipProcessor, BlipForConditionalGeneration),
            "florence2": (Florence2Processor, Florence2ForConditionalGeneration),
        }
        processor_class, model_class = classes[self.kind]
        try:
            processor = processor_class.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
            with _short_of_memory(self.folder):
                model, report = model_class.from_pretrained(
                    self.folder,
                    dtype=self._dtype,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                )
                model = model.to(self.device).eval()
        except DeviceError:
            raise
        except Exception as error:
            # Settings of a stranger's model meet code that expects good ones: nearly anything is raised.
            name = model_class.__name__
            raise BaseError(f"{self.folder} cannot be read as {name} of transformers: {first_line(error)}") from None
        wrong = sorted({*report["missing_keys"], *(str(each) for each in report["mismatched_keys"])})
        if wrong:
            raise BaseError(
                f"{self.folder} does not fit {model_class.__name__} of transformers ({len(wrong)} tensors, such as "
                f"{wrong[0]}). Of Florence-2 choose the edition that was made for it, such as "
                "florence-community/Florence-2-base."
            )
        return processor, model


@contextmanager
def _short_of_memory(folder: Path) -> Iterator[None]:
    """Within this context an error of torch about memory becomes a sentence."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"There is not enough memory for {folder.name}, which writes captions: close other programs, or "
            "use the CPU."
        ) from None
