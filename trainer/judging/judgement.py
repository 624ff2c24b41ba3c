"""What was judged and what follows from it, as a file in the run's folder; read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.errors import RunError
from trainer.judging.images import Learned, learned
from trainer.judging.pick import Candidate, pick, sentence

FILE = "judgement.json"
PICTURES = "judging"


class Judged(BaseModel):
    """One checkpoint at one strength: means of its scores, and what was seen of each picture.

    Attributes:
        style, subject: means over the pictures; ``scores`` holds them one by one.
        copied: name of the training image that it repeats, or empty.
        recall: how well it knows the training image by heart that it knows best; None where that was not looked at.
        by_heart: names of those that it knows by heart.
        excluded: the limit that it breaks (``copying``, ``drift`` or ``variety``), or empty.
        pictures: the strip of its pictures, relative to the run's folder.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int
    strength: float
    style: float
    subject: float
    nearness: float
    drift: float
    variety: float
    recall: float | None = None
    by_heart: tuple[str, ...] = ()
    copied: str = ""
    excluded: str = ""
    pictures: str = ""
    scores: dict[str, tuple[float, ...]] = {}
    nearest: tuple[int, ...] = ()
    recalled: tuple[int, ...] = ()
    images: int = 0

    def candidate(self) -> Candidate:
        """The scores, as `pick` takes them."""
        return Candidate(
            step=self.step,
            strength=self.strength,
            style=self.scores["style"],
            subject=self.scores["subject"],
            nearness=self.scores["nearness"],
            nearest=self.nearest,
            drift=self.drift,
            variety=self.variety,
            recall=self.scores.get("recall", ()),
            recalled=self.recalled,
            images=self.images,
        )


class Judgement(BaseModel):
    """A judged run.

    Attributes:
        candidates: by step, then strength.
        step, strength: what is recommended.
        confidence: share of resamples in which it is the best or within noise of it, 0 to 1.
        sentence: why, for people.
        chosen_step, chosen_strength: what the user kept instead; None while the recommendation holds.
        base_pictures: the strip of the base's pictures of the same prompts.
        prompts: of the strips' pictures, left to right.
        seconds: that judging took.
        images: how well each training image was learned at ``image_steps``; empty where that was not measured.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    candidates: tuple[Judged, ...]
    step: int
    strength: float
    confidence: float
    sentence: str
    tied: int = 0
    chosen_step: int | None = None
    chosen_strength: float | None = None
    base_pictures: str = ""
    prompts: tuple[str, ...] = ()
    seconds: float = 0.0
    images: tuple[Learned, ...] = ()
    image_steps: tuple[int, ...] = ()

    @property
    def kept(self) -> tuple[int, float]:
        """Step and strength of what is downloaded and shown: the user's choice, or else the recommendation."""
        if self.chosen_step is not None and self.chosen_strength is not None:
            return self.chosen_step, self.chosen_strength
        return self.step, self.strength

    def find(self, step: int, strength: float) -> Judged:
        """The candidate of a step at a strength.

        Raises:
            RunError: it was not judged.
        """
        for one in self.candidates:
            if one.step == step and abs(one.strength - strength) < 1e-6:
                return one
        known = ", ".join(f"{one.step}@{one.strength:g}" for one in self.candidates)
        raise RunError(f"Step {step} at strength {strength:g} was not judged; there are {known}.")

    def titled(self, titles: Mapping[str, str]) -> Judgement:
        """This with what the user calls the images (``titles``, by file name) instead of their files' names."""
        sentence = self.sentence
        for name in {one.copied for one in self.candidates if one.copied}:
            sentence = sentence.replace(name, titles.get(name, name))
        candidates = [
            one.model_copy(
                update={
                    "copied": titles.get(one.copied, one.copied),
                    "by_heart": tuple(titles.get(name, name) for name in one.by_heart),
                }
            )
            for one in self.candidates
        ]
        images = [one.model_copy(update={"title": titles.get(one.name, one.name)}) for one in self.images]
        return self.model_copy(update={"sentence": sentence, "candidates": tuple(candidates), "images": tuple(images)})

    def to_json(self) -> str:
        """As the file holds it."""
        return self.model_dump_json(indent=1) + "\n"


def from_json(text: str | bytes) -> Judgement:
    """The judgement in a file.

    Raises:
        RunError: the file is none.
    """
    try:
        return Judgement.model_validate_json(text)
    except ValidationError:
        raise RunError(f"{FILE} is damaged; judge the run again.") from None


def conclude(
    found: Sequence[tuple[Candidate, str]],
    image_names: Sequence[str],
    *,
    prompts: Sequence[str] = (),
    base_pictures: str = "",
    gains: Mapping[int, Sequence[float]] | None = None,
    seconds: float = 0.0,
) -> Judgement:
    """Pick among candidates, each with the path of its pictures, and say why.

    Args:
        image_names: of the training images.
        gains: how well each of them was learned (`trainer.judging.images`), by step.
    """
    candidates = [candidate for candidate, _ in found]
    chosen = pick(candidates)
    return Judgement(
        candidates=tuple(_judged(candidate, image_names, pictures) for candidate, pictures in found),
        step=chosen.candidate.step,
        strength=chosen.candidate.strength,
        confidence=chosen.confidence,
        sentence=sentence(chosen, candidates, image_names),
        tied=len(chosen.tied),
        base_pictures=base_pictures,
        prompts=tuple(prompts),
        seconds=seconds,
        images=learned(image_names, list(gains.values())) if gains else (),
        image_steps=tuple(gains or ()),
    )


def _judged(candidate: Candidate, image_names: Sequence[str], pictures: str) -> Judged:
    copied = candidate.copied
    return Judged(
        step=candidate.step,
        strength=candidate.strength,
        style=candidate.style_mean,
        subject=candidate.subject_mean,
        nearness=max(candidate.nearness),
        drift=candidate.drift,
        variety=candidate.variety,
        copied="" if copied is None else image_names[copied],
        excluded=candidate.excluded or "",
        pictures=pictures,
        scores={
            "style": candidate.style,
            "subject": candidate.subject,
            "nearness": candidate.nearness,
            "recall": candidate.recall,
        },
        nearest=candidate.nearest,
        recall=max(candidate.recall, default=None),
        by_heart=tuple(image_names[image] for image in candidate.by_heart),
        recalled=candidate.recalled,
        images=candidate.images,
    )
