"""Long texts in windows and weights in prompts, against web UI's rules written out once more and the encoders alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_families import build, save_folder

from trainer.bases.base import Base, SizeFacts, TextFeatures
from trainer.bases.open import load_base
from trainer.bases.prompts import literal, read_weights
from trainer.bases.windows import split
from trainer.config import BaseConfig
from trainer.data.dataset import Dataset
from trainer.preview.generate import cut_short
from trainer.training.batches import Batches, TrainingImage, join

COMMA = 7
LONG = "a very detailed picture of a red fox, " * 12 + "ink style"
"""119 tokens: two windows of 75."""


def written_out(tokens: list[int], size: int, backtrack: int) -> list[list[int]]:
    """Web UI's tokenize_line for one piece of text: walk, remember the last comma, break there when a chunk is full."""
    chunks, chunk, last_comma = [], [], -1
    for token in tokens:
        if token == COMMA:
            last_comma = len(chunk)
        elif len(chunk) == size and last_comma != -1 and len(chunk) - last_comma <= backtrack:
            chunks.append(chunk[: last_comma + 1])
            chunk, last_comma = chunk[last_comma + 1 :], -1
        if len(chunk) == size:
            chunks.append(chunk)
            chunk, last_comma = [], -1
        chunk.append(token)
    return [*chunks, chunk] if chunk or not chunks else chunks


@given(st.lists(st.sampled_from([COMMA, 1, 2, 3, 4, 5, 6, 8, 9]), max_size=60))
def test_windows_end_where_web_ui_ends_them(tokens: list[int]) -> None:
    found = [list(window.tokens) for window in split([(tokens, 1.0)], 15, COMMA, most=99)]
    assert found == written_out(tokens, 15, 4)


def test_what_commas_would_move_beyond_the_last_window_is_read_all_the_same() -> None:
    tokens = ([1] * 12 + [COMMA] + [2] * 2) * 3
    assert sum(len(window.tokens) for window in split([(tokens, 1.0)], 15, COMMA)) == 45
    assert sum(len(window.tokens) for window in split([([*tokens, 3], 1.0)], 15, COMMA)) == 45


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("", [("", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("[less] so", [("less", 1 / 1.1), (" so", 1.0)]),
        ("((twice))", [("twice", 1.1 * 1.1)]),
        ("time 12:30) and (a:.5 )", [("time 12:30) and ", 1.0), ("a", 0.5)]),
        ("a (b:1.2.3)", [("a ", 1.0), ("b:1.2.3", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.3 * 1.1 * 1.1),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.1**4),
                (".", 1.1),
            ],
        ),
        ("sky BREAK (sea:2)", [("sky", 1.0), ("", None), ("sea", 2.0)]),
        ("no BREAKFAST", [("no BREAKFAST", 1.0)]),
    ],
)
def test_weights_are_read_as_web_ui_reads_them(prompt: str, expected: list[tuple[str, float | None]]) -> None:
    found = read_weights(prompt)
    assert [part.text for part in found] == [text for text, _ in expected]
    for part, (_, weight) in zip(found, expected, strict=True):
        assert part.weight == (weight if weight is None else pytest.approx(weight))


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl", "bundled"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    source = request.param
    if source != "bundled":
        source = str(save_folder(build(source), tmp_path_factory.mktemp(source) / "model"))
    return load_base(BaseConfig(source=source), device=torch.device("cpu"), dtype=torch.float32)


def states(base: Base, rows: Sequence[Sequence[int]], weights: Sequence[Sequence[float]] = ()) -> tuple[Any, Any]:
    """Of windows given as tokens, by the encoders alone: states (windows, L, D), and what the first is pooled to.

    A window is its start mark, its tokens, its end mark and padding; tokens that weigh more are multiplied in the
    states, whose mean is then brought back.
    """
    hidden, pooled = [], None
    for spec in base.family.text_encoders:
        encoder, tokenizer = base.text_encoders[spec.root], base.tokenizers[spec.root]
        length = tokenizer.model_max_length
        marked = [[tokenizer.bos_token_id, *row, tokenizer.eos_token_id] for row in rows]
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in marked])
        with torch.no_grad():
            answer = encoder(ids, output_hidden_states=True)
        found = answer.hidden_states[-2] if spec.output == "penultimate" else answer.last_hidden_state
        for row, own in enumerate(weights):
            factors = torch.tensor([1.0, *own, *[1.0] * (length - len(own) - 1)])[:, None]
            louder = found[row] * factors
            found[row] = louder * (found[row].mean() / louder.mean())
        hidden.append(found)
        pooled = answer.text_embeds[0] if spec.pooled else pooled
    return torch.cat(hidden, dim=-1), pooled


def tokens_of(base: Base, text: str) -> list[int]:
    tokenizer = next(iter(base.tokenizers.values()))
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False).input_ids
    return ids


def test_a_long_text_is_read_in_windows_and_pooled_by_the_first(base: Base) -> None:
    size = base.window_tokens
    text = LONG if size == 75 else "red fox, blue house beside the lake, big ship, star"
    tokens = tokens_of(base, text)
    comma = tokens_of(base, "fox,")[-1]
    cut = written_out([COMMA if t == comma else t + 1000 for t in tokens], size, size * 4 // 15)
    rows = [[comma if t == COMMA else t - 1000 for t in row] for row in cut]
    assert len(rows) == 2
    expected, pooled = states(base, rows)
    found = base.encode_texts([text])
    assert found.hidden.shape == (1, 2 * (size + 2), expected.shape[-1])
    assert torch.equal(found.hidden[0], expected.flatten(0, 1))
    assert (found.pooled is None) == (pooled is None)
    if found.pooled is not None:
        torch.testing.assert_close(found.pooled[0], pooled)
    assert base.token_limit == 3 * size


def test_a_text_of_one_window_and_the_first_window_alone_are_as_the_tokenizer_makes_them(base: Base) -> None:
    for text in ("a red fox, ink style!", "", " ".join(["fox"] * 200)):
        hidden = []
        for spec in base.family.text_encoders:
            tokenizer, encoder = base.tokenizers[spec.root], base.text_encoders[spec.root]
            ids = tokenizer([text], padding="max_length", truncation=True, return_tensors="pt").input_ids
            with torch.no_grad():
                answer = encoder(ids, output_hidden_states=True)
            hidden.append(answer.hidden_states[-2] if spec.output == "penultimate" else answer.last_hidden_state)
        assert torch.equal(base.encode_texts([text], windows=1).hidden, torch.cat(hidden, dim=-1))
        if len(text) < 100:
            assert torch.equal(base.encode_texts([text]).hidden, torch.cat(hidden, dim=-1))


def test_weights_multiply_states_and_leave_their_mean(base: Base) -> None:
    parts = [("a ", 1.0), ("red", 1.4), (" fox, ", 1.0), ("blue", 0.5)]
    tokens = [tokens_of(base, text) for text, _ in parts]
    weights = [weight for own, (_, weight) in zip(tokens, parts, strict=True) for _ in own]
    expected, _ = states(base, [[t for own in tokens for t in own]], [weights])
    found = base.encode_prompts(["a (red:1.4) fox, (blue:0.5)"]).hidden
    torch.testing.assert_close(found[0], expected[0])
    plain = base.encode_texts(["a red fox, blue"]).hidden
    assert not torch.allclose(found, plain, atol=1e-3)
    # A row without weights beside it is untouched.
    both = base.encode_prompts(["a (red:1.4) fox", "a red fox"]).hidden
    torch.testing.assert_close(both[1], base.encode_texts(["a red fox"]).hidden[0])


def test_what_of_a_prompt_is_not_read_is_counted_and_said(base: Base) -> None:
    limit = base.token_limit
    assert base.unread("fox " * limit) == 0
    assert base.unread(f"({'fox ' * (limit + 4)}:1.2)") == 4
    cut = "fox BREAK a big fox BREAK fox BREAK red fox"
    assert base.unread(cut) == 2
    assert torch.equal(base.encode_prompts([cut]).hidden, base.encode_prompts([cut.rpartition(" BREAK ")[0]]).hidden)
    (said,) = cut_short(base, ["a fox", cut, cut, "(a) " * 3])
    assert said.startswith(f"The last 2 tokens of a prompt are not read, as the base reads {limit} in 3 windows: fox")


@given(st.text(st.sampled_from("ab ()[]\\:1.,")))
def test_a_trigger_with_brackets_can_be_written_so_that_it_stays_as_it_is(words: str) -> None:
    (part,) = read_weights(literal(words))
    assert (part.text, part.weight) == (words, 1.0)


def told(base: Base, features: TextFeatures, count: int) -> Any:
    return base.conditioning(features, [SizeFacts.whole(64, 64)] * count)


def test_a_short_text_beside_a_long_one_gives_what_it_gives_alone(base: Base) -> None:
    long, short = base.encode_texts([LONG]), base.encode_texts(["a fox"])
    both = TextFeatures.cat([short, long])
    assert both.lengths is not None
    latents = torch.randn(2, base.latent_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([100, 700])
    with torch.no_grad():
        together = base.predict(latents, times, told(base, both, 2))
        for row, alone in enumerate((short, long)):
            own = slice(row, row + 1)
            torch.testing.assert_close(
                together[own], base.predict(latents[own], times[own], told(base, alone, 1)), atol=1e-4, rtol=1e-3
            )
            torch.testing.assert_close(both.rows([row]).hidden, alone.hidden, rtol=0, atol=0)
            assert both.rows([row]).lengths is None


def test_batches_of_texts_of_different_length_are_joined(base: Base) -> None:
    def batches(text: str) -> Batches:
        shape = (1, base.latent_channels, 8, 8)
        image = TrainingImage(torch.zeros(shape), torch.zeros(shape), 0, (SizeFacts.whole(64, 64),))
        return Batches(base, [image], base.encode_texts([text]), batch_size=1)

    drawn = [batches(text).draw(0) for text in ("a fox", LONG)]
    joined = join(base, drawn)
    expected = told(base, base.encode_texts(["a fox", LONG]), 2)
    for key in ("encoder_hidden_states", "encoder_attention_mask"):
        torch.testing.assert_close(joined.conditioning[key], expected[key])


def test_runs_begun_before_windows_go_on_with_one() -> None:
    assert Dataset.from_json('{"version": 1, "examples": [], "findings": []}').windows == 1
    assert Dataset.from_json(Dataset(()).to_json()).windows == 3


def test_a_run_keeps_a_long_caption_whole(tmp_path: Path, sample_data_dir: Path) -> None:
    from PIL import Image

    from trainer.config import parse
    from trainer.training.prepare import prepare, read_dataset
    from trainer.training.run import create

    base = load_base(BaseConfig(), device=torch.device("cpu"), dtype=torch.float32)
    images = tmp_path / "images"
    images.mkdir()
    captions = ("a fox", "red fox, blue house beside the lake, big ship, yellow star, cat")
    for index, caption in enumerate(captions):
        Image.new("RGB", (128, 128), (50 * index, 90, 90)).save(images / f"{index}.png")
        (images / f"{index}.txt").write_text(caption)
    config = parse({"data": {"images": str(images)}, "trigger": ""})
    folder = create(config, tmp_path / "run")
    dataset = read_dataset(folder, config, base)
    assert not [finding for finding in dataset.findings if finding.kind == "caption_long"]
    for _ in ("encoded", "from the cache"):
        features = prepare(dataset, config, base, folder.cache).features
        assert features.hidden.shape[:2] == (3, 32)
        assert features.lengths == (16, 16, 32)
        torch.testing.assert_close(features.rows([2]).hidden, base.encode_texts([captions[1]]).hidden)
    old = Dataset(dataset.examples, windows=1)
    assert prepare(old, config, base, folder.cache).features.hidden.shape[:2] == (3, 16)
