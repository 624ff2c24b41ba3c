"""Tiny models of the real classes that write captions, as folders: random weights, a few words, a fraction of a MB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]",
    "a", "and", "black", "cat", "dog", "drawing", "of", "on", "red", "table", "the", "white",
]  # fmt: skip


SAYS = {"red": "a drawing of a red cat on the table", "blue": "a black and white dog"}
"""What `tiny_blip` says of a red and of a blue image."""


def tiny_blip(folder: Path) -> Path:
    """A BLIP in its folder that tells red from blue."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    torch.manual_seed(0)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    text = {
        "vocab_size": len(WORDS), "hidden_size": 32, "encoder_hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": 5,
        "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0, "projection_dim": 16,
    }  # fmt: skip
    sight = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 16, "projection_dim": 16,
    }  # fmt: skip
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=sight, projection_dim=16))
    processor = BlipProcessor(
        BlipImageProcessorPil(size={"height": 32, "width": 32}), BertTokenizer(vocab=vocabulary, do_lower_case=False)
    )
    _teach(model, processor)
    return _saved(model, processor, folder)


def tiny_florence(folder: Path) -> Path:
    """A Florence-2 in its folder; with random weights it says letters of no meaning."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import BartTokenizer, Florence2Config, Florence2ForConditionalGeneration, Florence2Processor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    tokenizer = BartTokenizer(
        vocab={token: index for index, token in enumerate(letters)},
        merges=[],
        extra_special_tokens={"image_token": "<image>"},
    )
    looks = CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    looks.image_seq_length = 5
    text = {
        "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "max_position_embeddings": 256,
    }  # fmt: skip
    sight = {
        "depths": (1, 1, 1, 1), "embed_dim": (8, 8, 8, 8), "num_heads": (1, 1, 1, 1), "num_groups": (1, 1, 1, 1),
        "window_size": 4, "projection_dim": 16, "max_position_embeddings": 10, "max_temporal_embeddings": 2,
    }  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=sight, image_token_id=tokenizer.image_token_id)
    return _saved(Florence2ForConditionalGeneration(config), Florence2Processor(looks, tokenizer), folder)


def _teach(model: Any, processor: Any) -> None:
    """Train it for a moment until it says of a red and of a blue image what `SAYS` says."""
    pictures = [Image.new("RGB", (32, 32), colour) for colour in SAYS]
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    words = [[5, *(WORDS.index(word) for word in said.split()), 3] for said in SAYS.values()]
    tokens = torch.tensor([row + [0] * (max(map(len, words)) - len(row)) for row in words])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(80):
        labels = tokens.masked_fill(tokens == 0, -100)
        loss = model(pixel_values=pixels, input_ids=tokens, attention_mask=(tokens != 0).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    model.eval()


def _saved(model: Any, processor: Any, folder: Path) -> Path:
    for part in (model, processor):
        part.save_pretrained(folder)
    return folder
