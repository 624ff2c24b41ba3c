"""What requests of a page carry is written once and in its order, however they overtake each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.entered import MOST_PAGES, Entered
from trainer.errors import ConfigError


class Written(list[tuple[str, str]]):
    """What was written, as (setting, value); a rank of 0 is refused."""

    def write(self, entry: Mapping[str, Any]) -> None:
        if (entry["set"], entry["value"]) == ("rank", "0"):
            raise ConfigError("rank is 0, but should be at least 1.")
        self.append((entry["set"], entry["value"]))


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def entered(written: Written) -> Entered:
    return Entered(written.write)


def entry(number: int, setting: str, value: str, **more: str) -> dict[str, Any]:
    return {"number": number, "run": "run-1", "set": setting, "value": value, **more}


def request(*entries: dict[str, Any], page: str = "page") -> dict[str, Any]:
    return {"entered": {"page": page, "entries": list(entries)}}


def test_a_click_that_overtakes_a_field_brings_its_value_along(entered: Entered, written: Written) -> None:
    name, trigger = entry(1, "name", "Crab"), entry(2, "trigger", "crab style")
    assert entered.take(request(trigger, name)) == ""
    assert written == [("name", "Crab"), ("trigger", "crab style")]
    assert entered.take(request(name)) == ""
    assert len(written) == 2, "the field's own request has nothing left to do"


def test_an_older_value_of_a_field_does_not_come_over_a_newer_one(entered: Entered, written: Written) -> None:
    entered.take(request(entry(2, "dial.length", "2")))
    entered.take(request(entry(1, "dial.length", "1")))
    entered.take(request(entry(1, "name", "late, and of another field")))
    assert written == [("dial.length", "2"), ("name", "late, and of another field")]


def test_each_image_and_each_page_has_fields_of_its_own(entered: Entered, written: Written) -> None:
    entered.take(request(entry(1, "caption", "a cat", image="a"), entry(1, "caption", "a dog", image="b")))
    entered.take(request(entry(1, "caption", "a cow", image="a"), page="another"))
    assert [value for _, value in written] == ["a cat", "a dog", "a cow"]


def test_who_brings_what_was_refused_before_is_told_so_until_the_field_is_mended(
    entered: Entered, written: Written
) -> None:
    wrong = entry(1, "rank", "0")
    for _ in range(2):
        assert entered.take(request(wrong)) == "rank is 0, but should be at least 1."
    assert entered.take(request(entry(2, "rank", "4"))) == ""
    assert entered.take(request(wrong)) == ""
    assert written == [("rank", "4")]


def test_one_value_that_is_refused_keeps_no_other_back(entered: Entered, written: Written) -> None:
    assert entered.take(request(entry(1, "rank", "0"), entry(2, "name", "Crab")))
    assert written == [("name", "Crab")]


@pytest.mark.parametrize(
    "sent",
    [None, 7, {}, {"entered": None}, {"entered": {"entries": 3}}, request({"number": "1"}), {"entered": [1]}],
)
def test_nonsense_from_a_browser_carries_nothing(entered: Entered, written: Written, sent: object) -> None:
    assert entered.take(sent) == ""
    assert not written


def test_pages_are_forgotten_when_many_others_have_asked(entered: Entered, written: Written) -> None:
    for number in range(MOST_PAGES + 1):
        entered.take(request(entry(1, "name", "Crab"), page=str(number)))
    assert len(written) == MOST_PAGES + 1
    entered.take(request(entry(1, "name", "Crab"), page="0"))
    assert len(written) == MOST_PAGES + 2
