"""Specs: what a user writes, checked as a whole before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pydantic

from orchestrator.block import DEFAULT_RUNTIME, Broken
from orchestrator.budget import Budget
from orchestrator.document import Document, Problem, read_document, refuse
from orchestrator.settings import (
    DEMO,
    ImageSet,
    LatencySettings,
    ObjectiveName,
    SpecFile,
    SplitImages,
    StudySettings,
    TrainingSettings,
    keys_of,
    problem_of,
    shown,
)
from orchestrator.space import Space, expand, expand_blocks
from tasks.errors import SpecMistake
from tasks.quantize.kept_layers import NONE
from tasks.quantize.schemes import Qat, Scheme
from tasks.types import Postprocessing

STUDY, FIND_BEST = "a study", "--find-best"
"""What searches are called in messages."""


@dataclass(frozen=True)
class Spec:
    """A checked spec; its paths are absolute."""

    name: str
    """Name of the sweep or study."""

    text: str
    """The file as written."""

    detector: Path | None
    """Detector file, or None for the built-in detector."""

    evaluation: ImageSet | None
    """Images to score on, or None for the synthetic set."""

    confirmation: ImageSet | None
    """Images to confirm the winner on, or None to confirm it on those of `evaluation` alone."""

    calibration: ImageSet | None
    """Representative images, or None for the synthetic set (or for none, if `needs_calibration` is False)."""

    needs_calibration: bool
    """Whether a variant of the space or a sensitivity analysis needs calibration images."""

    budget: Budget | None
    """The largest loss of a feasible variant."""

    space: Space
    """The variants."""

    sensitivity: tuple[Scheme, ...]
    """Schemes whose effect on each layer alone is measured."""

    latency: LatencySettings
    """How latency is measured."""

    study: StudySettings
    """How a study searches."""

    training: TrainingSettings = field(default_factory=TrainingSettings)
    """What all trainings have in common."""

    training_images: ImageSet | None = None
    """Images to train on, or None for the synthetic set (or for none, if no scheme is trained)."""

    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    """How raw outputs become detections."""


def load_spec(path: Path) -> Spec:
    """Reads and checks a spec file. Paths in it are relative to its folder.

    Args:
        path: A YAML file.

    Returns:
        The spec.

    Raises:
        SpecMistake: With every broken rule, the line, the value got and the choices.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecMistake(f"there is no spec file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecMistake(f"the spec file {path} cannot be read: {error}") from error
    return parse_spec(text, str(path), path.resolve().parent)


def parse_spec(text: str, origin: str, folder: Path) -> Spec:
    """Checks the text of a spec.

    Args:
        text: YAML.
        origin: What to call it in messages.
        folder: What relative paths are relative to.

    Returns:
        The spec.

    Raises:
        SpecMistake: As `load_spec`.
    """
    document = read_document(text, origin)
    if not isinstance(document.values, dict):
        raise SpecMistake(f"{origin} is not a spec: it must be a mapping with the keys {', '.join(keys_of(SpecFile))}")
    problems: list[Problem] = []
    file: SpecFile | None = None
    try:
        file = SpecFile.model_validate(document.values)
    except pydantic.ValidationError as error:
        problems += [problem_of(document, item) for item in error.errors()]
    blocks = document.values.get("space")
    threads = file.latency.threads if file else [1]
    space, broken = expand(blocks if isinstance(blocks, list) else [], threads)
    problems += [Problem(document.line_of(("space", *place)), message) for place, message in broken]
    analysed, broken = _sensitivity(document.values.get("sensitivity"))
    problems += [Problem(document.line_of(("sensitivity", *place)), message) for place, message in broken]
    calibrated = [each.scheme for each in space.variants if each.scheme.is_calibrated or each.scheme.needs_ranking]
    needs_calibration = bool(calibrated or analysed)
    if needs_calibration and file and file.calibration is None:
        what = calibrated[0].name if calibrated else "a sensitivity analysis"
        message = f"{what} needs calibration images: give `calibration: {{images: FOLDER}}`"
        problems.append(Problem(document.line_of(("space",) if calibrated else ("sensitivity",)), message))
    problems += _training_problems(document, file, space) if file else []
    refuse(origin, problems)
    assert file is not None
    split = file.evaluation if isinstance(file.evaluation, SplitImages) else None
    search, confirm = (split.search, split.confirm) if split else (file.evaluation, None)
    return Spec(
        name=file.name,
        text=text,
        detector=None if file.detector == DEMO else folder / file.detector,
        evaluation=_located(search, folder),
        confirmation=_located(confirm, folder),
        calibration=_located(file.calibration, folder),
        needs_calibration=needs_calibration,
        budget=Budget.of(file.budget.metric, file.budget.max_loss, file.budget.max_relative_loss)
        if file.budget
        else None,
        space=space,
        sensitivity=analysed,
        latency=file.latency,
        study=file.study,
        training=file.training,
        training_images=_located(_training_images(file), folder),
        postprocessing=Postprocessing(**file.postprocessing.model_dump()),
    )


def with_study(spec: Spec, study: Mapping[str, Any], stop: Mapping[str, Any]) -> Spec:
    """Puts flags of the command line in place of what a spec says about its study.

    Args:
        spec: A checked spec.
        study: Values by key of `StudySettings`.
        stop: Values by key of `StopSettings`.

    Returns:
        The spec with these values; the others are what they were. Its text ends with a comment on those of `study`
        that are not what the file says: they make it another study, and limits do not.

    Raises:
        SpecMistake: If a value is out of range; named as the flag that it came by.
    """
    now = spec.study.model_dump()
    try:
        settings = StudySettings.model_validate({**now, **study, "stop": {**now["stop"], **stop}})
    except pydantic.ValidationError as error:
        found = [f"--{item['loc'][-1]} is {shown(item['input'])}: {item['msg']}" for item in error.errors()]
        raise SpecMistake("; ".join(found)) from error
    changed = {name: value for name, value in study.items() if value != now[name]}
    noted = "".join(f"# given as a flag: {name} {value}\n" for name, value in sorted(changed.items()))
    return replace(spec, study=settings, text=f"{spec.text.rstrip()}\n{noted}" if noted else spec.text)


def refuse_aimless(spec: Spec, origin: str, what: str, objectives: Sequence[ObjectiveName]) -> None:
    """Refuses a spec in which a search has nothing to look for.

    Args:
        spec: A checked spec.
        origin: What to call it in messages.
        what: What to call the search.
        objectives: What the search makes small.

    Raises:
        SpecMistake: If nothing says how large a loss may be and the loss is not made small either, or there is nothing
            to choose from.
    """
    document, problems = read_document(spec.text, origin), []
    if spec.budget is None and "ap_loss" not in objectives:
        rule = f"{what} needs to know how large a loss may be: give `budget: {{max_loss: 0.01}}` (AP points)"
        if what == STUDY:
            choices = ", ".join(get_args(ObjectiveName))
            rule += f", or name ap_loss in `study.objectives`, which is {list(objectives)}; choices: {choices}"
        problems.append(Problem(document.line_of(("study", "objectives")), rule))
    if len(spec.space.variants) == 1:
        rule = f"{what} has nothing to choose from: the only variant, {spec.space.variants[0].label}, is the reference"
        problems.append(Problem(document.line_of(("space",)), rule))
    refuse(origin, problems)


def _sensitivity(blocks: Any) -> tuple[tuple[Scheme, ...], list[Broken]]:
    """Multiplies out the blocks of `sensitivity`: schemes of which one layer at a time can be quantized."""
    asked, broken = expand_blocks(blocks if isinstance(blocks, list) else [])
    schemes = [each.scheme for each in asked]
    for each in asked:
        if each.scheme.axes().get("keep_float", "") != NONE:
            message = f"{each.scheme.name} cannot be analysed layer by layer; it must have `keep_float: none`"
            broken.append(((), message))
        if isinstance(each.scheme, Qat):
            message = f"{each.scheme.name} is trained with all its layers; analyse {each.scheme.post_training.name}"
            broken.append(((), message))
        if each.runtime != DEFAULT_RUNTIME:
            message = f"layers are analysed on {DEFAULT_RUNTIME} alone, not on {each.runtime}; their order serves all"
            broken.append(((), message))
    return tuple(dict.fromkeys(schemes)), list(dict.fromkeys(broken))


def _training_images(file: SpecFile) -> ImageSet | str | None:
    settings = file.training
    if settings.images is None:
        return file.calibration
    return ImageSet(images=settings.images, annotations=settings.annotations)


def _training_problems(document: Document, file: SpecFile, space: Space) -> list[Problem]:
    """What is missing for the trainings of a space."""
    trained = [each.scheme for each in space.variants if isinstance(each.scheme, Qat) and each.scheme.is_trained]
    images = _training_images(file)
    if not trained or images == DEMO:
        return []
    if images is None:
        message = f"{trained[0].name} needs images to train on: give `training: {{images: FOLDER, annotations: FILE}}`"
        return [Problem(document.line_of(("space",)), message)]
    labelled = [scheme for scheme in trained if scheme.learns_from_labels]
    if not labelled or (isinstance(images, ImageSet) and images.annotations):
        return []
    where = "training" if file.training.images else "calibration"
    message = (
        f"{labelled[0].name} learns from labels ({1 - labelled[0].distillation_weight:g} of its loss), and `{where}` "
        f"has no annotations: give `{where}: {{images: FOLDER, annotations: FILE}}`, or `distillation_weight: 1`"
    )
    return [Problem(document.line_of((where,)), message)]


def _located(images: ImageSet | SplitImages | str | None, folder: Path) -> ImageSet | None:
    if not isinstance(images, ImageSet):
        return None
    annotations = str(folder / images.annotations) if images.annotations else None
    return ImageSet(images=str(folder / images.images), annotations=annotations)
