"""Train the base, time-boxed and resumable; the same command on a CPU and on CUDA.

    python -m tools.base.train autoencoder --data DATA --out RUN --minutes 6
    python -m tools.base.train text-to-image --data DATA --out RUN --minutes 15

Run a command again, with ``--stretch 9`` say, and it goes on where it stopped until its minutes are used up: the
learning rate follows the time trained. RUN holds a folder for each of the trainings (``state.pt`` to go on
from, ``log.jsonl``) and ``base``, the model at its averaged weights in fp32, renewed with every checkpoint.
``--start FOLDER`` begins from another base's weights instead of new ones. An autoencoder started so keeps its latents
where they were, and gets another level where the size has one more. ``decoder`` trains the autoencoder's decoder
alone and leaves the latents as they are.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from tools.base import dataset, model_folder, sizes
from tools.base.autoencoder import Autoencoder, Decoder, set_scaling
from tools.base.dataset import IconData
from tools.base.device import best_device
from tools.base.diffusion import MADE_UP_SHARE
from tools.base.grow import grown, levels
from tools.base.learner import Learner, run
from tools.base.model_folder import Model
from tools.base.sizes import SIZES, Size
from tools.base.text_to_image import TextToImage

SAVE_SECONDS = 120.0
BASE = "base"
TRAININGS = ("autoencoder", "decoder", "text-to-image")


def open_model(
    run_folder: Path, *, start: Path | None, size: Size, data: IconData, autoencoder: Path | None = None
) -> Model:
    """The run's model: as far as it is trained, or from ``start``, or new, then with the autoencoder of another base
    where one is named.
    """
    base = run_folder / BASE
    if not (base / "model_index.json").is_file():
        if start is not None:
            shutil.copytree(start, base, dirs_exist_ok=True)
        else:
            captions = [text for entry in data.entries for text in (*entry.captions, *entry.styled_captions)]
            model = model_folder.new(size, captions, base)
            if autoencoder is not None:
                model.vae = model_folder.load_autoencoder(autoencoder)
            model_folder.save(model, base)
    return model_folder.load(base)


def train(
    training: str,
    data: IconData,
    out: Path,
    *,
    size: Size,
    minutes: float,
    stretch: float | None = None,
    start: Path | None = None,
    autoencoder: Path | None = None,
    batch: int | None = None,
    rate: float | None = None,
    seed: int = 0,
    prediction: str | None = None,
    noise_offset: float = 0.0,
    made_up: float = MADE_UP_SHARE,
    remark: str = "",
) -> Learner:
    """One stretch of a training, one of `TRAININGS`, on CUDA if there is one.

    Args:
        data: what to train on, all of it.
        out: the run's folder.
        minutes: of all stretches together.
        stretch: minutes of this one; unless told otherwise all that are left.
        start: a base to begin from, for a run's first stretch.
        autoencoder: a base whose autoencoder a new one takes over.
        batch: samples of a step; unless told otherwise the size's own.
        rate: highest learning rate; unless told otherwise the training's own.
        prediction: ``epsilon`` or ``v_prediction``, with the schedule that goes with it; that of the model unless told
            otherwise.
        noise_offset: standard deviation of a shift of each noise channel as a whole.
        made_up: share of captions that end with a made-up style.
        remark: what the log and the model card should say of the data besides.

    Returns:
        The learner as it was left; ``progress`` 1 means that the minutes are used up.
    """
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high")
    device = best_device()
    model = open_model(out, start=start, size=size, data=data, autoencoder=autoencoder)
    if training == "autoencoder" and levels(model.vae) + 1 == len(size.autoencoder_channels):
        model.vae = grown(model.vae, size)
    if prediction and prediction != model.prediction:
        model.scheduler = sizes.scheduler_config(prediction)
    model.to(device)
    step: Autoencoder | Decoder | TextToImage
    if training == "autoencoder":
        keep_to = model_folder.load_autoencoder(start) if start else None
        step = Autoencoder.of(model, data, batch=batch or size.autoencoder_batch, keep_to=keep_to)
    elif training == "decoder":
        step = Decoder.of(model, data, batch=batch or size.autoencoder_batch)
    else:
        step = TextToImage.of(model, data, batch=batch or size.batch, noise_offset=noise_offset, made_up=made_up)
    learner = step.learner(out / training, seconds=60 * minutes, rate=rate, seed=seed)
    resumed = learner.resume()
    if learner.progress >= 1:
        return learner
    learner.log(
        event="resumed" if resumed else "started",
        minutes=minutes,
        batch=step.batch,
        rate=learner.peak,
        images=len(data.entries),
        sets=sorted({entry.set_key for entry in data.entries}),
        start=_run_name(start) if start else None,
        torch=torch.__version__,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads",
        prediction=model.prediction,
        noise_offset=noise_offset,
        made_up=made_up,
        looked=sum(bool(entry.look) for entry in data.entries),
        remark=remark,
    )

    def keep() -> None:
        learner.average.swap()
        if isinstance(step, Autoencoder) and not step.keep_to:
            set_scaling(model, data)
        replace_base(model, out / BASE)
        learner.average.swap()

    run(
        learner,
        step,
        stretch_seconds=60 * (stretch or minutes),
        save_seconds=SAVE_SECONDS,
        on_save=keep,
    )
    return learner


def _run_name(base: Path) -> str:
    """What to call the base that a training begins from: its folder, or the run whose base it is."""
    return base.parent.name if base.name == BASE else base.name


def replace_base(model: Model, folder: Path) -> None:
    """Write a base beside ``folder`` and put it in its place, so that a kill never leaves half of one."""
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    model_folder.save(model, partial)
    folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", choices=TRAININGS)
    parser.add_argument("--data", type=Path, required=True, help="folder that tools.base.dataset has built")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--minutes", type=float, required=True, help="of training in all stretches together")
    parser.add_argument("--stretch", type=float, help="minutes of this stretch; unless told otherwise, all of them")
    parser.add_argument("--start", type=Path, help="base folder to begin from")
    parser.add_argument("--autoencoder", type=Path, help="base folder whose autoencoder a new base takes over")
    parser.add_argument("--batch", type=int, help="samples of a step; the size's own unless told otherwise")
    parser.add_argument("--rate", type=float, help="highest learning rate; the training's own unless told otherwise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", metavar="KEY", help="icon sets to learn from; all unless told otherwise")
    parser.add_argument(
        "--prediction", choices=("epsilon", "v_prediction"), help="what to learn; the base's own unless told otherwise"
    )
    parser.add_argument("--noise-offset", type=float, default=0.0, help="shift of the noise's channels (0)")
    parser.add_argument("--made-up", type=float, default=MADE_UP_SHARE, help="share of made-up styles")
    chosen = vars(parser.parse_args(arguments))
    data = dataset.load(chosen.pop("data")).select("train")
    if sets := chosen.pop("sets"):
        data = data.of_sets(*sets)
    train(chosen.pop("training"), data, chosen.pop("out"), size=SIZES[chosen.pop("size")], **chosen)


if __name__ == "__main__":
    main()
