"""Scores against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainer.judging.features import Features, layout, layout_distances, observed, statistics
from trainer.judging.others import ALIKE, MOST_KNOWN, MOST_OTHERS, alike, pool_of
from trainer.judging.scores import (
    StyleScale,
    copying,
    drift_score,
    margins,
    recall_score,
    subject_score,
    variety_score,
)


def drawn(mean: torch.Tensor, deviation: torch.Tensor, where: torch.Tensor | None = None) -> Features:
    where = torch.eye(len(mean)) if where is None else where
    return Features(mean, deviation, F.normalize(where, dim=1))


def test_statistics_do_not_see_where_something_lies_and_layout_does() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 6, 8, 8)
    turned = maps.flip(3)
    for one, other in zip(statistics([maps]), statistics([turned]), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    near = layout_distances(*(Features(torch.zeros(2, 1), torch.zeros(2, 1), layout(x)) for x in (maps, turned)))
    assert float(near.diagonal().min()) > 0.1


def test_the_base_scores_zero_and_the_training_images_themselves_about_one() -> None:
    torch.manual_seed(0)
    references = drawn(5 + 0.1 * torch.randn(40, 8), 1 + 0.1 * torch.rand(40, 8))
    base = drawn(0.1 * torch.randn(6, 8), torch.ones(6, 8))
    scale = StyleScale.of(base, references)
    assert torch.allclose(scale.score(base), torch.zeros(6))
    like = drawn(5 + 0.1 * torch.randn(40, 8), 1 + 0.1 * torch.rand(40, 8))
    assert float(StyleScale.of(like, references).zero.mean()) == pytest.approx(scale.ceiling, rel=0.2)
    # At the ceiling's distance the way is done, and its middle is where as many halvings are over as are left.
    middle = (scale.zero[0] * scale.ceiling).sqrt()
    near = 5 - (float(middle) / float(scale.zero[0])) ** 0.5 * (5 - base.mean)
    assert float(scale.score(drawn(near, torch.ones(6, 8))).mean()) == pytest.approx(0.5, abs=0.02)


def test_a_channel_in_which_the_training_images_agree_counts_for_more_than_one_in_which_they_do_not() -> None:
    torch.manual_seed(0)
    spread = torch.tensor([0.1, 0.1, 3.0, 3.0])
    references = drawn(spread * torch.randn(40, 4), torch.ones(40, 4))
    base = drawn(torch.full((2, 4), 4.0), torch.ones(2, 4))
    agreed, other = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[4.0, 4.0, 0.0, 0.0]])
    first, second = StyleScale.of(base, references).score(drawn(torch.cat([agreed, other]), torch.ones(2, 4))).tolist()
    assert first > 2 * abs(second)


def test_a_picture_that_has_far_to_go_does_not_count_for_several() -> None:
    torch.manual_seed(0)
    references = drawn(0.1 * torch.randn(40, 8), torch.ones(40, 8))
    base = drawn(torch.tensor([[1.0] * 8, [10.0] * 8]), torch.ones(2, 8))
    scale = StyleScale.of(base, references)
    arrived = drawn(references.mean[:2], torch.ones(2, 8))
    near = scale.score(Features(torch.stack([arrived.mean[0], base.mean[1]]), base.deviation, base.layout))
    far = scale.score(Features(torch.stack([base.mean[0], arrived.mean[1]]), base.deviation, base.layout))
    assert near.tolist() == pytest.approx([1.0, 0.0], abs=0.15)
    assert far.tolist() == pytest.approx([0.0, 1.0], abs=0.15)


def test_a_base_that_draws_the_style_already_gives_finite_scores() -> None:
    references = drawn(torch.zeros(3, 4), torch.ones(3, 4))
    assert torch.isfinite(StyleScale.of(references, references).score(drawn(torch.ones(3, 4), torch.ones(3, 4)))).all()
    with pytest.raises(ValueError, match="one picture alone"):
        StyleScale.of(references, references.rows([0]))


def test_a_subject_survives_as_far_as_its_own_caption_explains_it_best() -> None:
    errors = torch.tensor([[[0.1], [0.2], [0.3]], [[0.2], [0.2], [0.2]], [[0.3], [0.2], [0.4]]])
    clear, even, lost = margins(errors).tolist()
    assert clear > 0
    assert abs(even) < 1e-6
    assert lost < 0
    base = torch.full((3,), clear)
    scores = subject_score(torch.tensor([clear, even, -clear]), base)
    assert torch.allclose(scores, torch.tensor([1.0, 0.5, 0.0]), atol=1e-3)
    scores = subject_score(torch.tensor([9.0, -9.0, clear / 2]), base)
    assert torch.allclose(scores, torch.tensor([1.0, 0.0, 0.97]), atol=1e-2)


def test_where_the_base_is_in_doubt_itself_a_small_lead_is_no_certainty() -> None:
    base = torch.tensor([0.4, 0.4, 0.4, 0.0])
    assert float(subject_score(torch.tensor([0.4, 0.4, 0.4, 0.01]), base)[3]) < 0.7


def test_an_easy_noise_level_counts_as_much_as_a_hard_one() -> None:
    assert float(margins(torch.tensor([[[0.010, 10.0], [0.020, 9.9]]]))) > 0


def test_an_image_is_known_by_heart_when_its_caption_brings_it_back_and_not_a_blur_or_another() -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 40)
    mean = images.mean(dim=0)
    assert torch.allclose(recall_score(images, images, mean), torch.ones(6))
    assert torch.allclose(recall_score(mean.expand(6, -1), images, mean), torch.zeros(6), atol=1e-6)
    assert float(recall_score(images.roll(1, 0), images, mean).max()) < 0
    half = (images + mean) / 2
    assert torch.allclose(recall_score(half, images, mean), torch.full((6,), 0.75), atol=1e-5)


def test_others_are_what_the_base_finds_most_alike_and_no_other_name_of_the_same() -> None:
    pool = pool_of(["cat face", "bus"], ["bus", "hamburger"], ["Owl", "owl", "", "cat"])
    assert pool[:5] == ["cat face", "bus", "Owl", "cat", "hamburger"]
    assert len(pool) == len(set(pool)) <= MOST_OTHERS
    errors = torch.ones(2, len(pool))
    errors[0, pool.index("cat")] = 0.0
    errors[0, pool.index("Owl")] = 0.1
    errors[1, pool.index("hamburger")] = 0.2
    first, second = alike(errors, pool, ["cat face", "bus"])
    assert first[0] == "Owl"
    assert second[0] == "hamburger"
    assert len(first) == len(second) == ALIKE
    many = pool_of(["bus"], [], [f"thing {index}" for index in range(100)])
    assert sum(name.startswith("thing") for name in many) <= MOST_KNOWN


def test_a_repeated_image_is_found_and_named() -> None:
    torch.manual_seed(0)
    where = torch.randn(5, 64)
    references = drawn(torch.zeros(5, 1), torch.zeros(5, 1), where)
    pictures = drawn(torch.zeros(2, 1), torch.zeros(2, 1), torch.stack([where[3] + 0.05, torch.randn(64)]))
    copied, fresh = copying(pictures, references)
    assert copied.image == 3
    assert copied.nearness > 10
    assert fresh.nearness < 1.6


def test_drift_is_the_relative_change_of_a_prediction() -> None:
    plain = torch.ones(2, 4, 3, 3)
    # One of two pictures changes by half of its size; another prompt would turn both into their opposites.
    assert drift_score(torch.stack([plain[0], 1.5 * plain[1]]), plain, -plain) == pytest.approx(0.25 / 2)
    assert drift_score(-plain, plain, -plain) == pytest.approx(1.0)


def test_variety_falls_when_other_prompts_and_seeds_draw_the_same_picture() -> None:
    torch.manual_seed(0)
    zeros = torch.zeros(4, 1)
    base = drawn(zeros, zeros, torch.randn(4, 32))
    same = drawn(zeros, zeros, torch.ones(4, 32) + 0.01 * torch.randn(4, 32))
    assert variety_score(base, base) == pytest.approx(1.0)
    assert variety_score(same, base) < 0.1
    # Two pictures that the base draws alike by chance decide nothing.
    twins = base.layout.clone()
    twins[1] = twins[0] + 1e-4
    assert variety_score(base, drawn(zeros, zeros, twins)) < 1.5


def test_observed_layers_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1))
    with observed([model[1], model[0]]) as seen:
        model(torch.zeros(1, 1, 4, 4))
        assert [tuple(maps.shape) for maps in seen] == [(1, 3, 4, 4), (1, 2, 4, 4)]
    assert not model[0]._forward_hooks
