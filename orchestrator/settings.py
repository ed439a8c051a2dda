"""The sections of a spec file: what each key may be, and how a mistake in one is told."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from orchestrator.document import Document, Place, Problem
from tasks.detector.loss import Balance, LossSettings, loss_for
from tasks.training.recipe import MOST_BATCH_IMAGES, SEEDS, Augmentation, Optimizer

DEMO = "demo"
"""In place of a path: the built-in detector, or a synthetic image set."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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

    @model_validator(mode="after")
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

    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 0
    """Seed of the sampler and of the order of images."""

    objectives: Annotated[list[ObjectiveName], Field(min_length=1)] = ["latency"]
    """What is made small; several give a Pareto front. Without a budget, `ap_loss` must be among them."""

    in_flight: Annotated[int, Field(ge=1, le=1000)] = 8
    """Variants without a verdict at the same time, the fastest of which are scored first; as many again may wait for a
    training."""

    error_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often a variant within the budget may be ended wrongly before it was scored on every image."""

    stop_early: bool = True
    """Whether scoring ends as soon as it is sure that a variant is over the budget."""

    stop: StopSettings = StopSettings()
    """When it ends."""

    @model_validator(mode="after")
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

    batch_size: Annotated[int, Field(ge=1, le=MOST_BATCH_IMAGES)] = 8
    """Images an update."""

    optimizer: Optimizer = "adamw"
    """Who makes updates of gradients."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decoupled weight decay of kernels."""

    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the updates over which the learning rate rises."""

    largest_gradient: Annotated[float, Field(gt=0)] = 10.0
    """Gradients of a greater global norm are scaled down to it."""

    balance: Balance | None = None
    """How background anchors are kept from drowning the others: by focal loss, or by hard negatives as a TF1
    configuration with a `hard_example_miner` does. Null for what the detector was trained with, as another one moves
    all scores; focal if it does not say."""

    focal_alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Weight of a wanted score in the focal loss; null for that of the detector, .25 if it does not say."""

    augmentation: AugmentationSettings = AugmentationSettings()
    """Shares of the images that are changed."""

    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the training images kept apart to see when training stops helping."""

    patience: Annotated[int, Field(ge=1)] | None = 6
    """Points of the learning curve without a better held-out loss after which a training ends; null for no limit."""

    points: Annotated[int, Field(ge=1, le=1000)] = 16
    """Points of a learning curve; between two of them a training can be stopped, and its CPU serve others."""

    @model_validator(mode="after")
    def _annotated_images(self) -> "TrainingSettings":
        if self.annotations is not None and self.images is None:
            raise ValueError("annotations without images: give `images: FOLDER`, too")
        return self

    @model_validator(mode="after")
    def _focal(self) -> "TrainingSettings":
        if self.focal_alpha is not None and self.balance != "focal":
            raise ValueError("focal_alpha belongs to focal loss: give `balance: focal`, too")
        return self

    def recipe(self, known: LossSettings | None) -> dict[str, Any]:
        """Returns the fields of `Recipe` that are no axes of schemes.

        Args:
            known: What the detector was trained with, if it says so.
        """
        own = {"images", "annotations", "balance", "focal_alpha", "augmentation"}
        return {
            **self.model_dump(exclude=own),
            "loss": loss_for(known, self.balance, self.focal_alpha),
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


class SpecFile(_Strict):
    """A spec as written, each section well-formed; what sections mean together is for `orchestrator.spec` to check."""

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


def keys_of(model: type[BaseModel]) -> list[str]:
    """Returns the keys of a section."""
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


def problem_of(document: Document, error: Any) -> Problem:
    """Says what is wrong with one value of a spec, in a user's words.

    Args:
        document: The spec.
        error: What pydantic found, an item of `ValidationError.errors()`.

    Returns:
        The line, the rule, the value got, and the choices where there are some.
    """
    # Forms of `evaluation` and `calibration` stand second; behind them are the user's own keys.
    place: Place = tuple(part for position, part in enumerate(error["loc"]) if position != 1 or part not in _FORMS)
    name = ".".join(str(part) for part in place) or "the spec"
    line = document.line_of(place)
    if error["type"] == "missing":
        return Problem(document.line_of(place[:-1]), f"the key `{name}` is missing")
    if error["type"] == "extra_forbidden":
        section = _SECTIONS.get(str(error["loc"][-2]), SpecFile) if len(place) > 1 else SpecFile
        return Problem(line, f"unknown key `{name}`; choices: {', '.join(keys_of(section))}")
    if error["type"] in ("literal_error", "model_type") and place and place[-1] in _FORMS_OF_IMAGES:
        return Problem(line, f"`{name}` is {shown(error['input'])}; it must be {_FORMS_OF_IMAGES[str(place[-1])]}")
    return Problem(line, f"`{name}` is {shown(error['input'])}: {error['msg']}")


def shown(value: Any) -> str:
    """Writes a value as messages do: folded if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
