"""Plans: a spec with its detector and image sets read and checked, and the keys of everything it asks for."""

from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.demo import demo_calibration, demo_evaluation, demo_training
from orchestrator.settings import ImageSet
from orchestrator.space import REFERENCE
from orchestrator.spec import Spec
from tasks.coco.dataset import Dataset, calibration_order, load_dataset, refuse_overlap
from tasks.coco.image_file import ImageFile
from tasks.coco.preprocess import PREPROCESSING
from tasks.detector.demo import demo_detector
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import DataMistake, SpecMistake
from tasks.host import this_host
from tasks.identity import key_of
from tasks.quantize.artifact import observation_packages, toolchain_versions
from tasks.quantize.builders import builder_of
from tasks.quantize.kept_layers import kept_layers
from tasks.quantize.schemes import TRAINING_AXES, Qat, Scheme
from tasks.runtimes.base import runtime_of
from tasks.storage import ArtifactStorage
from tasks.training.checkpoint import versions_of
from tasks.training.recipe import Recipe
from tasks.training.samples import TrainingSet, taught_categories, training_set
from tasks.types import Artifact, Host, RuntimeSettings

_LATENCY_PROTOCOL = "v2: paired blocks in rounds of fresh processes"

INTERVAL_METHOD = "v1: paired percentile bootstrap over images"
"""How the interval of a loss is estimated."""

TRAINED_FOR = frozenset((
    "granularity", "symmetry", "weight_algorithm", "keep_float", "range_estimator", "calibration_images",
    "calibration_seed", "transform", *TRAINING_AXES,
))  # fmt: skip
"""Axes of a scheme that its training depends on; the others say what is made of the result."""

RANKING_IMAGES = 16
"""Calibration images on which the outputs of a detector with one quantized layer are compared."""

_RANKING_PROTOCOL = f"v1: lower SQNR of boxes and scores over {RANKING_IMAGES} images"


@dataclass(frozen=True)
class Plan:
    """Everything that a sweep works from."""

    spec: Spec
    """What the user wrote."""

    detector: Detector
    """What is quantized."""

    evaluation: Dataset
    """What is scored on."""

    confirmation: Dataset | None
    """What the winner is scored on besides; None if nothing."""

    calibration: Dataset | None
    """Where representative images come from; None if no variant needs them."""

    training: TrainingSet | None
    """What is trained on; None if no variant is trained."""

    storage: ArtifactStorage
    """Where files go."""

    isa: tuple[str, ...]
    """Instruction set of the node that times, which compiled artifacts are for."""

    @property
    def detector_name(self) -> str:
        """Name of the detector for people."""
        return self.spec.detector.stem if self.spec.detector else "demo"

    def sample(self, seed: int, size: int) -> tuple[ImageFile, ...]:
        """Lists the calibration images of a seed in order.

        Args:
            seed: Seed of the sample.
            size: Number of images.

        Returns:
            The first `size` images of the seed's order.
        """
        assert self.calibration is not None
        files = {file.image_id: file for file in self.calibration.images}
        return tuple(files[image_id] for image_id in calibration_order(self.calibration.ids, seed)[:size])

    def request_key(self, scheme: Scheme) -> str:
        """Returns the key of an artifact request."""
        uses_images = scheme.is_calibrated or scheme.needs_ranking
        images = self._calibration_key() if uses_images else None
        ranking = _RANKING_PROTOCOL if scheme.needs_ranking else None
        versions = toolchain_versions(scheme)
        isa = self.isa if builder_of(scheme).is_compiled else None
        training = self.key_of_training(scheme)
        return key_of(
            "artifact", self.detector.sha256, scheme.name, scheme.axes(), images, ranking, versions, isa,
            *((training,) if training else ()),
        )  # fmt: skip

    def recipe(self, scheme: Qat) -> Recipe:
        """Returns how a scheme is trained."""
        return scheme.recipe(**self.spec.training.recipe(self.detector.loss))

    def training_key(self, scheme: Qat) -> str:
        """Returns the key of a training, which schemes share that differ only in what is made of its result."""
        assert self.training is not None
        axes = {name: value for name, value in scheme.axes().items() if name in TRAINED_FOR}
        images = self._calibration_key() if scheme.is_calibrated or scheme.needs_ranking else None
        ranking = _RANKING_PROTOCOL if scheme.needs_ranking else None
        return key_of(
            "training", self.detector.sha256, scheme.name, axes, self.recipe(scheme), images, ranking,
            self.training.fingerprint, PREPROCESSING, self.training_versions(scheme),
        )  # fmt: skip

    def key_of_training(self, scheme: Scheme) -> str | None:
        """Returns the key of a scheme's training, or None if it has none."""
        return self.training_key(scheme) if isinstance(scheme, Qat) and scheme.is_trained else None

    def training_versions(self, scheme: Qat) -> dict[str, str]:
        """Returns the installed version of each distribution that decides about trained weights."""
        return versions_of(scheme.trainer, observation_packages(scheme))

    def sensitivity_key(self, scheme: Scheme, scored: bool) -> str:
        """Returns the key of a sensitivity analysis.

        Args:
            scheme: How one layer at a time is quantized.
            scored: Whether AP is measured, too.

        Returns:
            The key.
        """
        scoring = (self.evaluation.fingerprint, self.scoring(REFERENCE.settings)) if scored else None
        versions = toolchain_versions(scheme)
        return key_of(
            "sensitivity", self.detector.sha256, scheme.name, scheme.axes(), self._calibration_key(), _RANKING_PROTOCOL,
            versions, scoring,
        )  # fmt: skip

    def interval_key(self, reference_accuracy_key: str, accuracy_key: str) -> str:
        """Returns the key of the interval of a loss."""
        return key_of("loss interval", reference_accuracy_key, accuracy_key, INTERVAL_METHOD)

    def _calibration_key(self) -> tuple[str, str]:
        assert self.calibration is not None
        return self.calibration.fingerprint, PREPROCESSING

    def accuracy_key(self, artifact: Artifact, settings: RuntimeSettings) -> str:
        """Returns the key of the accuracy of an artifact."""
        return key_of("accuracy", artifact.sha256, self.evaluation.fingerprint, self.scoring(settings))

    def scoring(self, settings: RuntimeSettings) -> dict[str, Any]:
        """Returns what an accuracy depends on besides artifact and images."""
        return {
            "preprocessing": PREPROCESSING,
            "pillow": version("pillow"),
            "architecture": key_of(replace(self.detector.spec, class_names=())),
            "postprocessing": self.spec.postprocessing,
            "runtime": settings.runtime,
            "runtime_options": dict(settings.options),
            "isa": self.isa if runtime_of(settings.runtime).rounds_by_isa else None,
            "runtime_version": runtime_of(settings.runtime).version(),
        }

    def latency_key(self, reference: Artifact, artifact: Artifact, settings: RuntimeSettings, host: Host) -> str:
        """Returns the key of the latency of an artifact's structure on a host."""
        structures = (reference.structure_sha256, artifact.structure_sha256)
        return key_of("latency", structures, self.timing(settings), host.fingerprint)

    def own_latency_key(self, reference: Artifact, artifact: Artifact, settings: RuntimeSettings, host: Host) -> str:
        """Returns the key of a second latency, of the very bytes of an artifact that won."""
        timed = (reference.structure_sha256, artifact.sha256)
        return key_of("latency of bytes", timed, self.timing(settings), host.fingerprint)

    def timing(self, settings: RuntimeSettings) -> dict[str, Any]:
        """Returns what a latency depends on besides structures and host."""
        return {
            "protocol": _LATENCY_PROTOCOL,
            "settings": settings,
            "runtime_version": runtime_of(settings.runtime).version(),
            "max_seconds": self.spec.latency.max_seconds,
            "target_half_width": self.spec.latency.target_half_width,
        }

    @property
    def scene_key(self) -> str:
        """Key of the images that latency is measured on."""
        return scene_key(self.evaluation.fingerprint, self.detector.sha256)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the whole sweep depends on: versions, calibration images, postprocessing."""
        packages = ("quantsweep", "numpy", "pillow", "hotcoco", "pycocotools")
        makers: dict[str, dict[str, str]] = {}
        for variant in self.spec.space.variants:
            makers.setdefault(variant.scheme.toolchain, {}).update(toolchain_versions(variant.scheme))
        return {
            "versions": {name: version(name) for name in packages},
            "toolchains": makers,
            "calibration": self.calibration.fingerprint if self.calibration else None,
            "scoring": self.scoring(self.spec.space.variants[0].settings),
            **({"training": self.training.fingerprint} if self.training else {}),
        }


def scene_key(dataset_fingerprint: str, detector_sha256: str) -> str:
    """Returns the key of the images that the latencies of a detector are measured on.

    Args:
        dataset_fingerprint: The evaluation set that they are of.
        detector_sha256: The detector, whose image size and anchors belong to it.

    Returns:
        The key.
    """
    return key_of("scene", dataset_fingerprint, detector_sha256, PREPROCESSING)


def prepare(spec: Spec, storage: ArtifactStorage, folder: Path) -> Plan:
    """Reads and checks what a spec names.

    Args:
        spec: A checked spec.
        storage: Where files will go.
        folder: Where the synthetic sets are made, if the spec asks for them.

    Returns:
        The plan.

    Raises:
        ModelMistake: If the detector cannot be read.
        DataMistake: If images or annotations are missing, damaged, of other classes than the detector's, or used both
            for calibration or training and for evaluation; or if training images are fewer than two, or have no
            labels to learn from.
        SpecMistake: If the calibration set is smaller than a sample that the spec asks for.
    """
    detector = Detector.load(spec.detector) if spec.detector else demo_detector()
    evaluation = _annotated(spec.evaluation) if spec.evaluation else demo_evaluation(folder)
    _refuse_other_classes(detector, evaluation)
    _refuse_unknown_layers(spec, detector)
    confirmation = _annotated(spec.confirmation) if spec.confirmation else None
    if confirmation is not None:
        _refuse_other_classes(detector, confirmation)
        refuse_overlap(confirmation, evaluation, "confirmation", "search")
    calibration = None
    if spec.needs_calibration:
        calibration = _images(spec.calibration) if spec.calibration else demo_calibration(folder)
        _refuse_small(spec, calibration)
        refuse_overlap(calibration, evaluation)
        if confirmation is not None:
            refuse_overlap(calibration, confirmation, "calibration", "confirmation")
    trained_on = _training_images(spec, detector, folder)
    if trained_on is not None:
        refuse_overlap(trained_on, evaluation, "training", "evaluation")
        if confirmation is not None:
            refuse_overlap(trained_on, confirmation, "training", "confirmation")
    training = None if trained_on is None else training_set(trained_on, detector.spec)
    return Plan(spec, detector, evaluation, confirmation, calibration, training, storage, this_host().isa)


def _training_images(spec: Spec, detector: Detector, folder: Path) -> Dataset | None:
    trained = [each.scheme for each in spec.space.variants if isinstance(each.scheme, Qat) and each.scheme.is_trained]
    if not trained:
        return None
    images = _images(spec.training_images) if spec.training_images else demo_training(folder)
    if any(scheme.learns_from_labels for scheme in trained):
        _refuse_other_labels(detector, images)
    return images


def _annotated(images: ImageSet) -> Dataset:
    if images.annotations is None:
        raise DataMistake(f"the evaluation images {images.images} have no annotations; give `annotations: FILE.json`")
    return load_dataset(Path(images.images), Path(images.annotations))


def _images(images: ImageSet) -> Dataset:
    return load_dataset(Path(images.images), Path(images.annotations) if images.annotations else None)


def _refuse_other_classes(detector: Detector, evaluation: Dataset) -> None:
    known = set(detector.spec.class_ids) - {0}
    if not known & set(evaluation.categories):
        raise DataMistake(
            f"the annotations {evaluation.annotations_path} are of another set: none of their category ids "
            f"({_few(evaluation.categories)}) is a class of the detector ({_few(known)})"
        )


def _refuse_other_labels(detector: Detector, training: Dataset) -> None:
    known, taught = set(detector.spec.class_ids) - {0}, taught_categories(training)
    if not known & taught.keys():
        raise DataMistake(
            f"the annotations {training.annotations_path} teach nothing: none of the category ids of their objects "
            f"({_few(taught)}) is a class of the detector ({_few(known)}); choices: annotations with its ids, or "
            "`distillation_weight: 1`, which needs none"
        )


def _refuse_unknown_layers(spec: Spec, detector: Detector) -> None:
    names = [layer.name for layer in layers(detector.spec)]
    problems = []
    for value in dict.fromkeys(variant.scheme.axes().get("keep_float", "none") for variant in spec.space.variants):
        try:
            kept_layers(value, names, ranking=names)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise SpecMistake("; ".join(problems))


def _refuse_small(spec: Spec, calibration: Dataset) -> None:
    schemes = [*(variant.scheme for variant in spec.space.variants), *spec.sensitivity]
    largest = max(scheme.axes().get("calibration_images", 0) for scheme in schemes)
    if largest > len(calibration):
        raise SpecMistake(
            f"calibration_images is {largest}, but the calibration set {calibration.name} has {len(calibration)} images"
        )


def _few(ids: Any) -> str:
    ordered = sorted(ids)
    return ", ".join(str(item) for item in ordered[:5]) + (", ..." if len(ordered) > 5 else "")
