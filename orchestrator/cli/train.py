"""`quantsweep train`: fine-tunes a float detector on the user's own images."""

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from orchestrator.fine_tuning import FineTuning
    from tasks.coco.dataset import Dataset
    from tasks.detector.loss import Balance, LossSettings
    from tasks.detector.weights import Detector
    from tasks.training.recipe import Recipe
    from tasks.types import TrainingProgress

DEMO = "demo"
"""What stands for the built-in detector."""

RATE_OF_KEPT, RATE_OF_NEW, RATE_FROM_SCRATCH = 1e-5, 3e-4, 3e-3
"""Learning rates where nobody says: of a detector that keeps its class heads, of one with new ones, and of one that
knows nothing; see docs/training.md for what other rates did to the real detector."""


def train(
    detector: Annotated[
        str, typer.Argument(metavar="DETECTOR", help="A detector.safetensors of `quantsweep model import`, or: demo.")
    ],
    images: Annotated[Path, typer.Option(help="Folder of training images.")],
    annotations: Annotated[Path, typer.Option(help="Their boxes, in COCO's instances format.")],
    out: Annotated[Path, typer.Option(help="File to write; STEM_training.json goes beside it.")],
    epochs: Annotated[int, typer.Option(help="How often each image is seen.")] = 10,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Peak: after a warm-up, a cosine down to 0; 1e-5 unless given, 3e-4 with new class heads, 3e-3 from "
            "scratch."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images an update.")] = 8,
    optimizer: Annotated[Literal["adamw", "sgd"], typer.Option(help="Who makes updates of gradients.")] = "adamw",
    balance: Annotated[
        Literal["focal", "hard_negatives"] | None,
        typer.Option(
            help="How background anchors count: all by how surprising they are, or the 3 worst an object. What the "
            "detector was trained with unless given, focal if it does not say; another one moves all scores, and AP "
            "falls."
        ),
    ] = None,
    focal_alpha: Annotated[
        float | None,
        typer.Option(
            help="Weight of a wanted score in the focal loss, between 0 and 1; that of the detector unless given, 0.25 "
            "if it does not say. The TensorFlow zoo's quantized detectors were trained with 0.75."
        ),
    ] = None,
    distillation: Annotated[
        float, typer.Option(help="Share of the first detector's answers in the loss, 0 to 1, against forgetting.")
    ] = 0.0,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Mirror, crop and colour the training images at random.")
    ] = True,
    held_out: Annotated[
        float, typer.Option(help="Share of the images kept apart to see when training stops helping.")
    ] = 0.1,
    patience: Annotated[
        int, typer.Option(help="Points of the learning curve (of 16) without a better held-out loss before the end.")
    ] = 6,
    classes: Annotated[
        Literal["auto", "keep", "new"],
        typer.Option(
            help="Class heads: keep the detector's, or new ones for the categories of the set; auto makes new ones "
            "if there is a category that the detector does not know."
        ),
    ] = "auto",
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Take the detector's architecture alone, and train new weights (with keras)."
        ),
    ] = False,
    trainer: Annotated[
        Literal["keras", "torch"], typer.Option(help="Framework that trains; the result is the same kind of file.")
    ] = "keras",
    seed: Annotated[int, typer.Option(help="Of order and augmentation, and of new heads.")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all CPUs unless given.")] = None,
    evaluate_images: Annotated[
        Path | None, typer.Option(help="Folder of other images to score on, before and after.")
    ] = None,
    evaluate_annotations: Annotated[Path | None, typer.Option(help="Their boxes.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    r"""Fine-tune a float detector on your own COCO-format images.

    The result is a detector.safetensors like any other: the float32 weights that
    `quantsweep sweep` and `quantsweep study` then quantize. For training with
    quantization in the loop, write a scheme qat_int8 into a spec instead.

    Some images are held out; the weights with the lowest loss on them are the
    ones that are written. The loss, the augmentation and the loop are those of
    quantization-aware training.

    If your set has categories that the detector does not know, its class heads
    are replaced by new ones, and it learns yours from the features it has; give
    those some more epochs. A trained detector forgets quickly at a high learning
    rate, or with another loss than it was trained with, while the loss falls: look
    at the AP on other images. `quantsweep model import` reads the loss from a
    pipeline.config beside the model; --balance and --focal-alpha say otherwise.

    Checkpoints go into OUT.training/, one a minute. After Ctrl-C or a crash the
    same command goes on from there; another recipe starts anew beside it. Delete
    the folder when you have the result.

    For example:

      quantsweep train detector.safetensors --images photos/train \
        --annotations photos/train.json --out mine.safetensors --epochs 20 \
        --evaluate-images photos/val --evaluate-annotations photos/val.json

      quantsweep study SPEC     (with the line `detector: mine.safetensors`)

    With --from-scratch, only the detector's architecture is taken; expect to need
    thousands of images and some hundred epochs.
    """
    from tasks.errors import UserMistake

    if out.is_dir():
        raise UserMistake(f"{out} is a folder; name the file to write with --out")
    if out.exists() and not force:
        raise UserMistake(f"{out} exists; name another file with --out, or replace it with --force")
    if from_scratch and (trainer != "keras" or distillation):
        raise UserMistake(
            "--from-scratch trains with keras, and has no detector to learn from; choices: --trainer keras, and "
            "--distillation 0"
        )
    if focal_alpha is not None and balance != "focal":
        raise UserMistake("--focal-alpha belongs to focal loss; choices: give --balance focal, too, or leave it out")
    recipe = _recipe(
        augment, epochs=epochs,
        learning_rate=RATE_OF_KEPT if learning_rate is None else learning_rate, batch_size=batch_size,
        optimizer=optimizer, distillation_weight=distillation, held_out=held_out, patience=patience, seed=seed,
    )  # fmt: skip
    _refuse_missing(trainer)
    _prepare_environment(trainer, threads)
    from orchestrator.fine_tuning import FineTuning, start_of
    from orchestrator.library_messages import library_messages_in

    first = _detector(detector)
    recipe = replace(recipe, loss=_loss(None if from_scratch else first.loss, balance, focal_alpha))
    dataset = _annotated(images, annotations)
    evaluation = _evaluation(evaluate_images, evaluate_annotations, dataset)
    start = start_of(first, dataset, classes, seed)
    if start.has_new_classes and distillation:
        raise UserMistake(
            f"--distillation {distillation:g} needs a detector that knows the classes, but its class heads are "
            f"{start.because}; choices: --distillation 0, or --classes keep"
        )
    if learning_rate is None and (from_scratch or start.has_new_classes):
        recipe = replace(recipe, learning_rate=RATE_FROM_SCRATCH if from_scratch else RATE_OF_NEW)
    if evaluation is not None:
        _note_unscored(evaluation, start.detector)
    checkpoints = out.with_name(f"{out.name}.training")
    tuning = FineTuning(start, dataset, trainer, recipe, checkpoints, from_scratch)
    with library_messages_in(tuning.folder / "libraries.log"):
        progress = _run(tuning)
        _finish(tuning, progress, first, evaluation, out, detector)


def _loss(known: "LossSettings | None", balance: "Balance | None", focal_alpha: float | None) -> "LossSettings":
    from tasks.detector.loss import loss_for
    from tasks.errors import UserMistake

    try:
        return loss_for(known, balance, focal_alpha)
    except ValueError as error:
        raise UserMistake(f"--{str(error).replace('_', '-', 1)}") from error


def _recipe(augment: bool, **settings: Any) -> "Recipe":
    from tasks.errors import UserMistake
    from tasks.training.recipe import NO_AUGMENTATION, Augmentation, Recipe

    if settings["epochs"] < 1:
        raise UserMistake(f"--epochs is {settings['epochs']}; it must be at least 1")
    try:
        return Recipe(**settings, augmentation=Augmentation() if augment else NO_AUGMENTATION)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        flag = "distillation" if name == "distillation_weight" else name.replace("_", "-")
        raise UserMistake(f"--{flag} {rest}") from error


def _refuse_missing(trainer: str) -> None:
    from importlib.util import find_spec

    from tasks.errors import UserMistake

    if trainer == "torch" and find_spec("torch") is None:
        raise UserMistake(
            "--trainer torch needs torch, not installed here: pip install 'quantsweep[torch]'; choices: --trainer keras"
        )


def _prepare_environment(trainer: Literal["keras", "torch"], threads: int | None) -> None:
    """Says how many threads to use; the frameworks read it when they are imported."""
    from cluster.lanes import LANES_BY_TRAINER, TENSORFLOW, available_cpus
    from tasks.errors import UserMistake

    wanted = available_cpus() if threads is None else threads
    if not 1 <= wanted <= available_cpus():
        raise UserMistake(f"--threads is {wanted}; choices: 1 to {available_cpus()}, the CPUs of this machine")
    # Evaluations run the Keras build whoever trained.
    for name, value in {**TENSORFLOW.environment, **LANES_BY_TRAINER[trainer].environment}.items():
        os.environ[name] = str(wanted) if name.endswith("_THREADS") and "INTEROP" not in name else value


def _detector(name: str) -> "Detector":
    from tasks.detector.demo import demo_detector
    from tasks.detector.weights import Detector

    return demo_detector() if name == DEMO else Detector.load(Path(name))


def _annotated(images: Path, annotations: Path) -> "Dataset":
    from tasks.coco.dataset import load_dataset

    return load_dataset(images, annotations)


def _evaluation(images: Path | None, annotations: Path | None, training: "Dataset") -> "Dataset | None":
    from tasks.coco.dataset import refuse_overlap
    from tasks.errors import UserMistake

    if images is None and annotations is None:
        return None
    if images is None or annotations is None:
        raise UserMistake("--evaluate-images and --evaluate-annotations belong together; give both or neither")
    evaluation = _annotated(images, annotations)
    refuse_overlap(training, evaluation, "training", "evaluation")
    return evaluation


def _note_unscored(evaluation: "Dataset", detector: "Detector") -> None:
    absent = [name for number, name in evaluation.categories.items() if number not in detector.spec.class_ids]
    if absent:
        typer.echo(
            f"note: the evaluation images have {len(absent)} categories that the trained detector has no column for, "
            f"and whose AP is 0: {', '.join(absent[:5])}",
            err=True,
        )


def _run(tuning: "FineTuning") -> "TrainingProgress":
    from orchestrator.training_view import open_training_view
    from tasks.detector.loss import described

    held_out = tuning.recipe.held_out_images(len(tuning.images))
    classes = "all weights are new" if tuning.is_from_scratch else f"classes {tuning.start.because}"
    loss = tuning.recipe.loss
    teacher = str(loss) if tuning.is_from_scratch else described(loss, tuning.start.detector.loss)
    typer.echo(classes, err=True)
    if tuning.recipe.distillation_weight < 1:
        typer.echo(f"labels teach by {teacher}", err=True)
    typer.echo(f"{len(tuning.images)} images, {held_out} of them held out; checkpoints in {tuning.folder}", err=True)
    try:
        with closing(open_training_view(tuning.steps, tuning.images_per_update)) as view:
            return tuning.run(view)
    except KeyboardInterrupt:
        typer.echo(f"the training so far is in {tuning.folder}", err=True)
        raise


def _finish(
    tuning: "FineTuning",
    progress: "TrainingProgress",
    first: "Detector",
    evaluation: "Dataset | None",
    out: Path,
    name: str,
) -> None:
    from orchestrator.cli.output import print_line
    from orchestrator.fine_tuning import record_of, scored, write_result

    trained = tuning.detector(progress)
    scores: dict[str, Any] | None = None
    if evaluation is not None:
        typer.echo(f"scoring on {len(evaluation)} images", err=True)
        before = None if tuning.start.has_new_classes or tuning.is_from_scratch else scored(first, evaluation)
        scores = {"images": len(evaluation), "before": before, "after": scored(trained, evaluation)}
    record = {"started_from": Path(name).name, **record_of(tuning, progress, first, scores)}
    place = write_result(out, trained, record)
    best, last = progress.best, progress.points[-1]
    why = "all updates done" if progress.end == "finished" else "ended early, as the held-out loss fell no more"
    print_line(f"wrote {out} and {place.name}")
    print_line(f"  held-out loss  {progress.points[0].held_out_loss:.4f} before, {best.held_out_loss:.4f} after")
    print_line(f"  best after     {best.step} of {progress.steps} updates ({why})")
    if scores is not None:
        was = f"{scores['before']['ap']:.4f} before, " if scores["before"] else ""
        print_line(f"  AP             {was}{scores['after']['ap']:.4f} after, on {scores['images']} images")
    print_line(f"  cost           {last.seconds:.0f} s, {last.core_seconds:.0f} core-seconds on {progress.device}")
    if best.step == 0:
        print_line("  note: no update was an improvement; try a lower --learning-rate, or more images")
    if scores is not None and scores["before"] and scores["after"]["ap"] < scores["before"]["ap"]:
        print_line(
            "  note: AP fell though the loss did not; try what the detector was trained with (--balance, "
            "--focal-alpha), --distillation, or a lower --learning-rate"
        )
    print_line(f"next: quantsweep study SPEC, where SPEC has the line `detector: {out}`")
