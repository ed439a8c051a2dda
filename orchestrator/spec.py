"""Specs: what a user writes, checked as a whole before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from orchestrator.block import DEFAULT_RUNTIME, Broken
from orchestrator.budget import Budget
from orchestrator.document import Document, Place, Problem, read_document, refuse
from orchestrator.space import Space, expand, expand_blocks
from tasks.errors import SpecMistake
from tasks.quantize.kept_layers import NONE
from tasks.quantize.schemes import Qat, Scheme
from tasks.training.recipe import Augmentation, Balance, LossSettings, Optimizer
from tasks.types import Postprocessing

DEMO = "demo"
"""In place of a path: the built-in detector, or a synthetic image set."""


STUDY, FIND_BEST = "a study", "--find-best"
"""What searches are called in messages."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImageSet(_Strict):
    """Images, and their annotations in COCO format."""

    images: Annotated[str, Field(min_length=1)]
    """Folder of images."""

    annotations: str | None = None
    """COCO-format JSON; needed for evaluation and for training, not for post-training calibration."""


class BudgetSettings(_Strict):
    """The largest loss that a feasible variant may have."""

    metric: Literal["AP", "AP50", "AP75"] = "AP"
    """The COCO statistic."""

    max_loss: Annotated[float, Field(ge=0, le=1)] | None = None
    """In AP points, AP in [0, 1]."""

    max_relative_loss: Annotated[float, Field(ge=0, le=1)] | None = None
    """As a share of the reference's AP."""

    @pydantic.model_validator(mode="after")
    def _one_limit(self) -> "BudgetSettings":
        if (self.max_loss is None) == (self.max_relative_loss is None):
            raise ValueError("give one of max_loss and max_relative_loss")
        return self


class LatencySettings(_Strict):
    """How latency is measured."""

    threads: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1)] = [1]
    """Thread counts; each is a variant of its own. They share artifacts and accuracies, and differ in latency."""

    max_seconds: Annotated[float, Field(gt=0)] = 20.0
    """Time cap of one measurement."""

    target_half_width: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Wanted half-width of the ratio's interval, relative to the ratio."""

    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a measurement is repeated whose conditions were bad; after that it stays, marked as noisy."""

    profile: bool = False
    """Whether each operator is timed, too; seconds to a minute for each structure."""


class SplitImages(_Strict):
    """Two evaluation sets: one to search on, one to confirm the winner on."""

    search: ImageSet
    """Decides which variant wins."""

    confirm: ImageSet
    """Says what the winner loses on images that had no part in choosing it; none of them may be in `search`."""


class StopSettings(_Strict):
    """When a study ends; null for no limit. It also ends when every variant was asked for."""

    trials: Annotated[int, Field(ge=1)] | None = 200
    """Most variants tried, without those that are known already."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    """Most wall time."""

    images: Annotated[int, Field(ge=1)] | None = None
    """Most images inferred."""

    patience: Annotated[int, Field(ge=1)] | None = 50
    """Most verdicts in a row without a better feasible variant, once there is one."""


ObjectiveName = Literal["latency", "ap_loss", "size"]
"""What a study can make small."""


class StudySettings(_Strict):
    """How `quantsweep study` searches."""

    sampler: Literal["tpe", "gp", "nsga2", "random", "qmc", "brute_force"] = "tpe"
    """Who chooses the next variant."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the sampler and of the order of images."""

    objectives: Annotated[list[ObjectiveName], Field(min_length=1)] = ["latency"]
    """What is made small; several give a Pareto front. Without a budget, `ap_loss` must be among them."""

    in_flight: Annotated[int, Field(ge=1, le=1000)] = 8
    """Variants without a verdict at the same time; the fastest of them are scored first."""

    error_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often a variant within the budget may be ended wrongly before it was scored on every image."""

    stop_early: bool = True
    """Whether scoring ends as soon as it is sure that a variant is over the budget."""

    stop: StopSettings = StopSettings()
    """When it ends."""

    @pydantic.model_validator(mode="after")
    def _distinct_objectives(self) -> "StudySettings":
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives are {', '.join(self.objectives)}; name each of them once")
        return self


class AugmentationSettings(_Strict):
    """What is done to training images; see `tasks.training.recipe.Augmentation`."""

    mirror: Annotated[float, Field(ge=0, le=1)] = Augmentation.mirror
    crop: Annotated[float, Field(ge=0, le=1)] = Augmentation.crop
    colour: Annotated[float, Field(ge=0, le=1)] = Augmentation.colour


class TrainingSettings(_Strict):
    """What all trainings of a spec have in common; the rest are axes of the schemes `qat_...`."""

    images: Annotated[str, Field(min_length=1)] | None = None
    """Folder of training images; those of `calibration` if null."""

    annotations: Annotated[str, Field(min_length=1)] | None = None
    """COCO-format JSON of these images; training by distillation alone (`distillation_weight: 1`) needs none."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images an update."""

    optimizer: Optimizer = "adamw"
    """Who makes updates of gradients."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decoupled weight decay of kernels."""

    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the updates over which the learning rate rises."""

    largest_gradient: Annotated[float, Field(gt=0)] = 10.0
    """Gradients of a greater global norm are scaled down to it."""

    balance: Balance = "hard_negatives"
    """How background anchors are kept from drowning the others: as the TF1 configuration does, or by focal loss."""

    augmentation: AugmentationSettings = AugmentationSettings()
    """Shares of the images that are changed."""

    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the training images kept apart to see when training stops helping."""

    patience: Annotated[int, Field(ge=1)] | None = 6
    """Points of the learning curve without a better held-out loss after which a training ends; null for no limit."""

    points: Annotated[int, Field(ge=1, le=1000)] = 16
    """Points of a learning curve; between two of them a training can be stopped, and its CPU serve others."""

    @pydantic.model_validator(mode="after")
    def _annotated_images(self) -> "TrainingSettings":
        if self.annotations is not None and self.images is None:
            raise ValueError("annotations without images: give `images: FOLDER`, too")
        return self

    @property
    def recipe(self) -> dict[str, Any]:
        """Fields of `Recipe` that are no axes of schemes."""
        own = {"images", "annotations", "balance", "augmentation"}
        return {
            **self.model_dump(exclude=own),
            "loss": LossSettings(balance=self.balance),
            "augmentation": Augmentation(**self.augmentation.model_dump()),
        }


class PostprocessingSettings(_Strict):
    """How raw outputs become detections."""

    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 1e-2
    iou_threshold: Annotated[float, Field(gt=0, le=1)] = 0.6
    max_per_class: Annotated[int, Field(ge=1)] = 100
    max_per_image: Annotated[int, Field(ge=1)] = 100


def _form_of_images(value: Any) -> str:
    """Names the form that a user meant, so that a mistake is told in the words of that form alone."""
    if not isinstance(value, dict):
        return DEMO
    return SplitImages.__name__ if value.keys() & SplitImages.model_fields.keys() else ImageSet.__name__


_Images = Annotated[ImageSet, Tag(ImageSet.__name__)]
_Demo = Annotated[Literal["demo"], Tag(DEMO)]
_Evaluation = Annotated[
    _Images | Annotated[SplitImages, Tag(SplitImages.__name__)] | _Demo, Discriminator(_form_of_images)
]
_Calibration = Annotated[
    _Images | _Demo, Discriminator(lambda value: ImageSet.__name__ if isinstance(value, dict) else DEMO)
]


class _SpecFile(_Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    detector: Annotated[str, Field(min_length=1)]
    evaluation: _Evaluation
    calibration: _Calibration | None = None
    budget: BudgetSettings | None = None
    space: Annotated[list[dict[str, Any]], Field(min_length=1)]
    sensitivity: list[dict[str, Any]] = []
    latency: LatencySettings = LatencySettings()
    study: StudySettings = StudySettings()
    training: TrainingSettings = TrainingSettings()
    postprocessing: PostprocessingSettings = PostprocessingSettings()


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
        raise SpecMistake(f"{origin} is not a spec: it must be a mapping with the keys {', '.join(_keys(_SpecFile))}")
    problems: list[Problem] = []
    file: _SpecFile | None = None
    try:
        file = _SpecFile.model_validate(document.values)
    except pydantic.ValidationError as error:
        problems += [_problem(document, item) for item in error.errors()]
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
        found = [f"--{item['loc'][-1]} is {_shown(item['input'])}: {item['msg']}" for item in error.errors()]
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
        if each.runtime != DEFAULT_RUNTIME:
            message = f"layers are analysed on {DEFAULT_RUNTIME} alone, not on {each.runtime}; their order serves all"
            broken.append(((), message))
    return tuple(dict.fromkeys(schemes)), list(dict.fromkeys(broken))


def _training_images(file: _SpecFile) -> ImageSet | str | None:
    settings = file.training
    if settings.images is None:
        return file.calibration
    return ImageSet(images=settings.images, annotations=settings.annotations)


def _training_problems(document: Document, file: _SpecFile, space: Space) -> list[Problem]:
    """What is missing for the trainings of a space."""
    trained = [each.scheme for each in space.variants if isinstance(each.scheme, Qat) and each.scheme.is_trained]
    images = _training_images(file)
    if not trained or images == DEMO:
        return []
    if images is None:
        message = f"{trained[0].name} needs images to train on: give `training: {{images: FOLDER, annotations: FILE}}`"
        return [Problem(document.line_of(("space",)), message)]
    labelled = [scheme for scheme in trained if scheme.distillation_weight < 1]
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


def _keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


_SECTIONS: dict[str, type[BaseModel]] = {
    "ImageSet": ImageSet,
    "SplitImages": SplitImages,
    "search": ImageSet,
    "confirm": ImageSet,
    "budget": BudgetSettings,
    "latency": LatencySettings,
    "study": StudySettings,
    "stop": StopSettings,
    "training": TrainingSettings,
    "augmentation": AugmentationSettings,
    "postprocessing": PostprocessingSettings,
}
"""Models by the last part of the place of their errors: a key, or a form of `evaluation` or `calibration`."""

_FORMS = (ImageSet.__name__, SplitImages.__name__, DEMO)

_FORMS_OF_IMAGES = {
    "evaluation": "demo, {images: FOLDER, annotations: FILE} or {search: {...}, confirm: {...}} of such",
    "calibration": "demo or {images: FOLDER}",
    "search": "{images: FOLDER, annotations: FILE}",
    "confirm": "{images: FOLDER, annotations: FILE}",
}
"""What may stand where images are named."""


def _problem(document: Document, error: Any) -> Problem:
    # Forms of `evaluation` and `calibration` stand second; behind them are the user's own keys.
    place: Place = tuple(part for position, part in enumerate(error["loc"]) if position != 1 or part not in _FORMS)
    name = ".".join(str(part) for part in place) or "the spec"
    line = document.line_of(place)
    if error["type"] == "missing":
        return Problem(document.line_of(place[:-1]), f"the key `{name}` is missing")
    if error["type"] == "extra_forbidden":
        section = _SECTIONS.get(str(error["loc"][-2]), _SpecFile) if len(place) > 1 else _SpecFile
        return Problem(line, f"unknown key `{name}`; choices: {', '.join(_keys(section))}")
    if error["type"] in ("literal_error", "model_type") and place and place[-1] in _FORMS_OF_IMAGES:
        return Problem(line, f"`{name}` is {_shown(error['input'])}; it must be {_FORMS_OF_IMAGES[str(place[-1])]}")
    return Problem(line, f"`{name}` is {_shown(error['input'])}: {error['msg']}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
