"""Patterns of PEFT's settings match what they match there, and none takes long."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import AdapterFileError
from trainer.styles.patterns import Machine, Patterns

PATHS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q",
    "down_blocks.0.resnets.0.conv1",
    "up_blocks.1.attentions.0.proj_in",
    "mid_block.resnets.1.conv2",
    "conv_in",
    "xconv_in",
    "a-b",
    "",
)
UNDERSTOOD = (
    r".*attn2.*",
    r"to_q|conv1",
    r"^down_blocks\.\d+.*",
    r"(?:up|mid)_block(s)?\..*",
    r"[a-d]own_blocks.+conv[12]",
    r"[^x]onv_in",
    r"conv_i?n+",
    r"(conv1|proj_(in|out))$",
    r"\w+\.resnets\.[0-9]\.conv\d",
    r"([a-z]|\.|_|\d)*",
    r"[\d.]+\.conv1",
    r"a[-x]b",
    r"(x|)conv_in",
)


@pytest.mark.parametrize("pattern", UNDERSTOOD)
def test_a_pattern_matches_what_peft_lets_it_match(pattern: str) -> None:
    from peft.utils.other import get_pattern_key

    machine = Machine(pattern)
    assert [machine.matches(path) for path in PATHS] == [get_pattern_key([pattern], path) == pattern for path in PATHS]


def test_the_first_pattern_that_matches_wins(tmp_path: Path) -> None:
    table = {"attn2.to_q": 1, ".*to_q": 2, "conv1": 3, "resnets.0.conv1": 4, r"^xconv_in": 5}
    patterns = Patterns.parse(tmp_path, "alpha_pattern", table, float)
    assert [patterns.of(path, 0.0) for path in PATHS[:2]] == [1, 3]
    assert patterns.of("up_blocks.0.attn1.to_q", 0.0) == 2
    assert patterns.of("xconv_in", 0.0) == 5
    assert patterns.of("proj_in", None) is None


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)b", "(a", "a)", "*a", "[a", r"\bconv", "a{2}", "(" * 30 + "a" + ")" * 30, "[z-a]", "a" * 300 + "*"],
)
def test_a_pattern_that_is_not_understood_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(AdapterFileError, match="alpha_pattern, which Patina does not read: "):
        Patterns.parse(tmp_path, "alpha_pattern", {pattern: 1}, float)


def test_no_pattern_takes_long(tmp_path: Path) -> None:
    table = dict.fromkeys(("(a+)+b", "(a|a)*b", ".*.*.*.*.*.*b", "((a*)*)*b", "(a?)" * 40 + "b"), 1)
    patterns = Patterns.parse(tmp_path, "alpha_pattern", table, float)
    # One that tries every way would not be done when the universe ends.
    for length in range(400, 500):
        assert patterns.of("a" * length, None) is None
