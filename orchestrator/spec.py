"""Specs: what a user writes, checked as a whole before anything runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.block import DEFAULT_RUNTIME, Broken
from orchestrator.budget import Budget
from orchestrator.document import Document, Place, Problem, read_document, refuse
from orchestrator.space import Space, expand, expand_blocks
from tasks.errors import SpecMistake
from tasks.quantize.kept_layers import NONE
from tasks.quantize.schemes import Scheme
from tasks.types import Postprocessing

DEMO = "demo"
"""In place of a path: the built-in detector, or a synthetic image set."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImageSet(_Strict):
    """Images, and their annotations in COCO format."""

    images: Annotated[str, Field(min_length=1)]
    """Folder of images."""

    annotations: str | None = None
    """COCO-format JSON; needed for evaluation, not for post-training calibration."""


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


class StudySettings(_Strict):
    """How `quantsweep study` searches."""

    sampler: Literal["tpe", "gp", "nsga2", "random", "qmc", "brute_force"] = "tpe"
    """Who chooses the next variant."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the sampler and of the order of images."""

    objectives: Annotated[list[Literal["latency", "ap_loss", "size"]], Field(min_length=1)] = ["latency"]
    """What is made small; several give a Pareto front. Without a budget, `ap_loss` must be among them."""

    in_flight: Annotated[int, Field(ge=1, le=1000)] = 8
    """Variants without a verdict at the same time; the fastest of them are scored first."""

    error_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often a variant within the budget may be ended wrongly before it was scored on every image."""

    stop_early: bool = True
    """Whether scoring ends as soon as it is sure that a variant is over the budget."""

    stop: StopSettings = StopSettings()
    """When it ends."""


class PostprocessingSettings(_Strict):
    """How raw outputs become detections."""

    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 1e-2
    iou_threshold: Annotated[float, Field(gt=0, le=1)] = 0.6
    max_per_class: Annotated[int, Field(ge=1)] = 100
    max_per_image: Annotated[int, Field(ge=1)] = 100


class _SpecFile(_Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    detector: Annotated[str, Field(min_length=1)]
    evaluation: ImageSet | SplitImages | Literal["demo"]
    calibration: ImageSet | Literal["demo"] | None = None
    budget: BudgetSettings | None = None
    space: Annotated[list[dict[str, Any]], Field(min_length=1)]
    sensitivity: list[dict[str, Any]] = []
    latency: LatencySettings = LatencySettings()
    study: StudySettings = StudySettings()
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
        postprocessing=Postprocessing(**file.postprocessing.model_dump()),
    )


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


def _located(images: ImageSet | SplitImages | str | None, folder: Path) -> ImageSet | None:
    if not isinstance(images, ImageSet):
        return None
    annotations = str(folder / images.annotations) if images.annotations else None
    return ImageSet(images=str(folder / images.images), annotations=annotations)


def _keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


_SECTIONS: dict[str, type[BaseModel]] = {
    "evaluation": ImageSet,
    "calibration": ImageSet,
    "budget": BudgetSettings,
    "latency": LatencySettings,
    "study": StudySettings,
    "postprocessing": PostprocessingSettings,
}


def _problem(document: Document, error: Any) -> Problem:
    location = tuple(part for part in error["loc"] if part not in ("ImageSet", "literal['demo']"))
    name = ".".join(str(part) for part in location) or "the spec"
    place: Place = location
    if error["type"] == "missing":
        return Problem(document.line_of(place[:-1]), f"the key `{name}` is missing")
    if error["type"] == "extra_forbidden":
        section = _SECTIONS.get(str(location[0]), _SpecFile) if len(location) > 1 else _SpecFile
        return Problem(document.line_of(place), f"unknown key `{name}`; choices: {', '.join(_keys(section))}")
    return Problem(document.line_of(place), f"`{name}` is {_shown(error['input'])}: {error['msg']}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
