from __future__ import annotations

from dataclasses import replace

import torch

from trainer.bases.base import Base
from trainer.training.batches import Batches, TrainingImage
from trainer.training.prepare import Prepared


def batches(base: Base, materials: Prepared, **changes: float) -> Batches:
    return Batches(base, materials.training, materials.features, **{"batch_size": 2, "seed": 1, **changes})


def test_a_batch_is_a_function_of_its_step(base: Base, materials: Prepared) -> None:
    one, other = batches(base, materials), batches(base, materials)
    other.draw(0)
    for step in (3, 1):
        a, b = one.draw(step), other.draw(step)
        assert torch.equal(a.latents, b.latents)
        assert torch.equal(a.noise, b.noise)
        assert torch.equal(a.timesteps, b.timesteps)
        assert torch.equal(a.conditioning["encoder_hidden_states"], b.conditioning["encoder_hidden_states"])


def test_another_seed_or_step_or_micro_step_draws_other_noise(base: Base, materials: Prepared) -> None:
    drawn = batches(base, materials, accumulation=2)
    other = batches(base, materials, accumulation=2, seed=2)
    noises = [drawn.draw(0).noise, drawn.draw(1).noise, drawn.draw(0, 1).noise, other.draw(0).noise]
    assert all(not torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])


def test_an_image_that_is_repeated_comes_so_much_more_often_and_else_nothing_changes(
    base: Base, materials: Prepared
) -> None:
    first, *others = materials.training
    often = Batches(base, [replace(first, repeats=3), *others], materials.features, batch_size=1, seed=1)
    epoch = [often._members(step)[0] for step in range(often.plan.batches_per_epoch)]
    assert {image: epoch.count(image) for image in epoch} == {0: 3, **{1 + i: 1 for i in range(len(others))}}
    once = batches(base, materials)
    assert [once._members(step) for step in range(6)] == [once.plan.batch(step) for step in range(6)]


def test_latents_are_drawn_from_the_posterior_and_scaled(base: Base, materials: Prepared) -> None:
    drawing = replace(base, family=replace(base.family, draws_latents=True))
    drawn = batches(drawing, materials)
    chosen = materials.training[drawn.plan.batch(0)[0]]
    unscaled = drawn.draw(0).latents[0] / base.vae.config.scaling_factor
    distance = torch.stack([((unscaled - m) / s).abs().mean() for m, s in zip(chosen.mean, chosen.std, strict=True)])
    # One of the two variants is a standard normal draw away (mean |z| = 0.8), the mirrored one is not.
    assert 0.6 < distance.min() < 1.0


def test_a_base_that_was_trained_on_means_sees_means(base: Base, materials: Prepared) -> None:
    drawn = batches(base, materials)
    chosen = materials.training[drawn.plan.batch(0)[0]]
    latents = drawn.draw(0).latents[0]
    assert any(torch.equal(latents, base.scale_latents(mean)) for mean in chosen.mean)


def test_mirrored_variants_are_used_about_half_of_the_time(base: Base, materials: Prepared) -> None:
    image = materials.training[0]
    marked = TrainingImage(
        torch.stack([torch.zeros(4, 2, 2), torch.ones(4, 2, 2)]), torch.zeros(2, 4, 2, 2), 0, image.sizes
    )
    drawn = Batches(base, [marked], materials.features, batch_size=4, seed=1)
    mirrored = sum(float(drawn.draw(step).latents[:, 0, 0, 0].gt(0).sum()) for step in range(100))
    assert 150 < mirrored < 250


def test_captions_are_dropped_as_often_as_asked(base: Base, materials: Prepared) -> None:
    drawn = batches(base, materials, caption_dropout=0.25)
    empty = materials.features.hidden[0]
    seen = torch.cat([drawn.draw(step).conditioning["encoder_hidden_states"] for step in range(200)])
    share = (seen == empty).flatten(1).all(1).float().mean()
    assert 0.2 < share < 0.3


def test_timesteps_cover_the_whole_schedule(base: Base, materials: Prepared) -> None:
    drawn = batches(base, materials)
    seen = torch.cat([drawn.draw(step).timesteps for step in range(200)])
    assert seen.min() < 50
    assert seen.max() > 949
    assert abs(float(seen.float().mean()) - 499.5) < 50


def test_images_of_different_shapes_never_meet_in_a_batch(base: Base, materials: Prepared) -> None:
    def image(width: int) -> TrainingImage:
        latents = torch.full((1, 4, 8, width), float(width))
        return TrainingImage(latents, torch.zeros_like(latents), 0, materials.training[0].sizes[:1])

    drawn = Batches(
        base, [image(8), image(16), image(8), image(16), image(8)], materials.features, batch_size=2, seed=1
    )
    widths = [drawn.draw(step).latents.shape[-1] for step in range(12)]
    assert set(widths) == {8, 16}
    assert drawn.compose(drawn.largest, 0).latents.shape[-1] == 16


def test_held_out_images_are_not_trained_on(materials: Prepared) -> None:
    assert len(materials.validation) == 2
    assert len(materials.training) == 4
    kept = [image.mean[0] for image in materials.validation]
    assert not any(torch.equal(image.mean[0], other) for image in materials.training for other in kept)
