"""Values that pass between the rooms: frozen, checked at birth, units in the names."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from tasks.errors import TaskFailure
from tasks.identity import key_of
from tasks.quantize.schemes import Scheme as Scheme


@dataclass(frozen=True)
class RuntimeSettings:
    """How an artifact is run."""

    runtime: str = "litert"
    """The runtime's identifier."""

    threads: int = 1
    """Intra-operator threads, at least 1."""

    options: tuple[tuple[str, str], ...] = ()
    """(name, value) of the runtime's own options that are not at their default, sorted by name."""

    def __post_init__(self) -> None:
        """Checks the number of threads, and that equal options are equal values."""
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}; it must be at least 1")
        names = [name for name, _ in self.options]
        if names != sorted(set(names)):
            raise ValueError(f"options are {names}; they must be sorted by name, each named once")

    def option(self, name: str, default: str) -> str:
        """Returns the value of an option, or its default."""
        return dict(self.options).get(name, default)


_LABEL_MARKS = {
    "range_estimator": "",
    "symmetry": "",
    "weight_algorithm": "weights_",
    "input_type": "in_",
    "output_type": "out_",
    "memory_layout": "",
    "activation_type": "act_",
    "bias_correction": "bias_",
    "transform": "",
    "keep_float": "float_",
    "learning_rate": "lr",
    "distillation_weight": "distil",
    "freeze_point": "freeze",
    "training_seed": "run",
}
"""Axes that a label shows where they are not at their default, and what stands before the value."""


def _slug(given: str | float) -> str:
    """Makes a value fit for a shell; what is changed gets a few digits of its hash, so that labels stay distinct."""
    if isinstance(given, int):
        return str(given)
    if isinstance(given, float):
        short = f"{given:g}"
        return short if float(short) == given else repr(given)
    slug = re.sub(r"\W+", "_", given)
    return slug if slug == given else f"{slug}_{key_of(given)[:4]}"


@dataclass(frozen=True)
class Variant:
    """One candidate: a scheme and the settings it runs with."""

    scheme: Scheme
    """How the artifact is made."""

    settings: RuntimeSettings = field(default_factory=RuntimeSettings)
    """How the artifact is run."""

    @property
    def label(self) -> str:
        """A readable name, unique among the variants of one detector."""
        options = [_slug(value) for _, value in self.settings.options]
        return "-".join([self.settings.runtime, scheme_label(self.scheme), *options, f"t{self.settings.threads}"])


def scheme_label(scheme: Scheme) -> str:
    """Returns a readable name of a scheme, unique among those of one detector."""
    axes = scheme.axes()
    words = [scheme.name, axes["toolchain"]]
    words += [axes["granularity"]] if "granularity" in axes else []
    if "calibration_images" in axes:
        words += [f"cal{axes['calibration_images']}", f"seed{axes['calibration_seed']}"]
    if "epochs" in axes:
        words += [axes["trainer"], f"ep{axes['epochs']}"] if axes["epochs"] else ["untrained"]
    defaults = {item.name: item.default for item in fields(scheme)}
    for axis, mark in _LABEL_MARKS.items():
        if axis in axes and axes[axis] != defaults[axis]:
            words.append(mark + _slug(axes[axis]))
    return "-".join(words)


@dataclass(frozen=True)
class ImageShard:
    """Preprocessed images of one slice of a dataset."""

    image_ids: np.ndarray
    """(N,) int64, ids as in the annotations."""

    sizes: np.ndarray
    """(N, 2) int32, [height, width] of each original image in pixels, after EXIF rotation."""

    pixels: np.ndarray
    """(N, S, S, 3) uint8 RGB, the whole image resized to the detector's input, aspect ratio not kept."""

    fingerprint: str
    """sha256 of the original image bytes, ids and the preprocessing."""

    def __len__(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True)
class Postprocessing:
    """How raw outputs become detections; one implementation serves every runtime."""

    score_threshold: float = 1e-2
    """Detections scored at or below this are dropped; in [0, 1]."""

    iou_threshold: float = 0.6
    """A box is suppressed when its IoU with a better one of its class is above this; in (0, 1]."""

    max_per_class: int = 100
    """Detections kept of one class in one image."""

    max_per_image: int = 100
    """Detections kept in one image."""


@dataclass(frozen=True)
class DetectionShard:
    """Detections on one slice of images."""

    image_ids: np.ndarray
    """(M,) int64, all images of the slice, those without detections too."""

    detections: np.ndarray
    """(N, 7) float32: [position of the image in `image_ids`, x, y, width, height, score, category id]; the box in
    pixels of the original image. Sorted by position, then by falling score."""

    inference_seconds: float
    """Wall time spent in the runtime."""

    postprocessing_seconds: float
    """Wall time spent from raw outputs to detections."""


@dataclass(frozen=True)
class Audit:
    """What an artifact really holds, read back from its bytes."""

    mac_share: dict[str, float]
    """Share of multiply-accumulates by arithmetic, in [0, 1]: float32, float16, dynamic_int8 (int8 weights, float
    activations quantized in the kernel), int8, float32_small (too small for the toolchain to quantize), ..."""

    weight_share: dict[str, float]
    """Share of the weights (elements of convolution kernels) by stored type, in [0, 1]."""

    granularity: str | None
    """`per_channel` or `per_tensor` of the quantized kernels, `mixed`, or None if nothing is quantized."""

    operators: dict[str, int]
    """Number of operators by name."""

    macs: int
    """Multiply-accumulates of one inference, all convolutions."""

    input_type: str
    """Element type of the input tensor."""

    output_types: dict[str, str]
    """Element type of each output tensor, by role (`boxes`, `scores`)."""

    layers: dict[str, str] = field(default_factory=dict)
    """Arithmetic of each layer by its canonical name, in the words of `mac_share`; empty if the names are lost."""

    codebook_size: int = 0
    """Most distinct stored weights of one output channel, over all kernels but depthwise ones, whose channels have a
    few weights each: at most 2^b for a clustered detector, 2 for a binary one."""

    symmetric_activations: bool | None = None
    """Whether all integer activations that kernels read and write have the zero point 0; None if there are none."""


@dataclass(frozen=True)
class Artifact:
    """A model file, named by its content, in artifact storage."""

    sha256: str
    """Content hash of the file."""

    format: str
    """File format, which is its suffix without the dot: `tflite`."""

    size_bytes: int
    """Size of the file."""

    compressed_bytes: int
    """Size after zlib at level 6: what a download costs, and what clustered weights save."""

    structure_sha256: str
    """Hash of the graph with shapes, types and granularities, without the values of weights, scales, zero points."""

    audit: Audit
    """What it really holds."""


@dataclass(frozen=True)
class Accuracy:
    """Scores of one artifact on one evaluation set. AP in [0, 1]; -1 where there is nothing to score."""

    statistics: tuple[float, ...]
    """The 12 COCO statistics, in pycocotools' order: AP, AP50, AP75, AP small, medium, large, AR1, AR10, AR100,
    AR small, medium, large."""

    class_ap: dict[int, float]
    """AP by category id."""

    images: int
    """Number of images evaluated."""

    detections: int
    """Number of detections scored."""

    detections_sha256: str
    """The detections' file in artifact storage."""

    scorer: str
    """What computed the statistics: `hotcoco` or `pycocotools`, with its version."""


@dataclass(frozen=True)
class LossInterval:
    """AP loss of a variant against the reference on the same images; positive is worse."""

    loss: float
    """AP of the reference less AP of the variant, on all images; AP in [0, 1]."""

    low: float
    """Lower end of the interval."""

    high: float
    """Upper end of the interval."""

    level: float
    """Nominal coverage, in (0, 1)."""

    resamples: int
    """Bootstrap resamples drawn."""

    seed: int
    """Seed of the draws."""

    images: int
    """Images that each resample draws from, and as many as it draws."""


VerdictKind = Literal[
    "feasible", "infeasible", "dominated", "no_gain", "unpromising", "noisy", "unsupported", "failed", "unsettled",
]  # fmt: skip
"""What a search decides about a variant. `dominated`: surely slower than a feasible one; `no_gain`: not faster than a
feasible one, within the error of measurement; `unpromising`: its training was ended, since it went badly; `noisy`: its
latency cannot be trusted; `unsupported`: it cannot be made or scored, and never could; `failed`: it could not be
measured this time; `unsettled`: the search ended first."""


@dataclass(frozen=True)
class Verdict:
    """What a search decided about a variant, and on how much evidence."""

    kind: VerdictKind
    """The decision."""

    images: int
    """Images that it was scored on by then; 0 if its accuracy was not asked for."""

    all_images: int
    """Images of the whole evaluation: with fewer, `interval` is of a part of them and no score."""

    interval: LossInterval | None
    """Loss of the budget's metric on those images, as the budget counts it, and how sure it is."""

    because: str
    """Why, in one line."""

    @property
    def is_partial(self) -> bool:
        """Whether it was decided on some of the images."""
        return 0 < self.images < self.all_images


TrainingEnd = Literal["finished", "no_better"]
"""`finished`: all updates were done; `no_better`: the held-out loss did not fall for as long as the recipe waits."""


@dataclass(frozen=True)
class TrainingPoint:
    """A point of the learning curve. Losses of updates are means since the point before; None at the first point."""

    step: int
    """Updates done."""

    held_out_loss: float
    """The recipe's total loss on the held-out images, not augmented: of labels, of the float teacher, or of both."""

    loss: float | None
    """Total loss of the updates."""

    box_loss: float | None
    score_loss: float | None
    """Its parts against the labels; None if the images have no annotations."""

    distillation_loss: float | None
    """Its part against the float teacher's answers."""

    learning_rate: float | None
    """Learning rate of the last update."""

    images_per_second: float | None
    """Training images a second of wall time, since the point before."""

    seconds: float
    """Wall time of the training so far, the work of lost workers not included."""

    core_seconds: float
    """CPU time of the training process so far, all threads together: what the training cost."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is."""

    points: tuple[TrainingPoint, ...]
    """The learning curve so far, from step 0 on."""

    steps: int
    """Updates planned."""

    images: int
    """Training images, those held out included."""

    held_out_images: int
    """Of these, kept apart."""

    device: str
    """Where it computes: `cpu`, or the name of the GPU."""

    best_step: int
    """Updates done at the lowest held-out loss so far: the weights that are kept."""

    trained_sha256: str
    """The best weights and ranges so far: content hash of a file of `tasks.training.trained`, which is in artifact
    storage once the training is over."""

    end: TrainingEnd | None = None
    """Why it is over; None if it goes on."""

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.end is not None

    @property
    def step(self) -> int:
        """Updates done."""
        return self.points[-1].step

    @property
    def best(self) -> TrainingPoint:
        """The point of the weights that are kept."""
        return next(point for point in self.points if point.step == self.best_step)


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer alone does to a detector."""

    layer: str
    """Canonical name of the layer."""

    sqnr_db: float
    """The lower of the two below, infinite without noise; layers are ranked by it, the lowest is the most sensitive."""

    sqnr_boxes_db: float
    """Signal-to-quantization-noise ratio of the encoded boxes on calibration images, in dB."""

    sqnr_scores_db: float
    """Signal-to-quantization-noise ratio of the scores on calibration images, in dB."""

    mac_share: float
    """Share of the detector's multiply-accumulates that the layer makes, in [0, 1]."""

    ap: float | None = None
    """AP on the evaluation images with this layer alone quantized; None if it was not scored."""

    ap_loss: float | None = None
    """AP of the float detector on the same images - `ap`."""


@dataclass(frozen=True)
class Latency:
    """Latency of one artifact structure on one host, measured beside the reference. Milliseconds an image."""

    latency_ms_p50: float
    latency_ms_p90: float
    latency_ms_p99: float
    """Quantiles of the inference time."""

    reference_ms_p50: float
    """Median of the reference's inference time in the same run."""

    ratio: float
    """Variant time / reference time: mean over rounds of the median over the pairs of a round, in logarithms."""

    ratio_low: float
    ratio_high: float
    """95 % interval of `ratio`; see `tasks.latency.ratio`."""

    postprocessing_ms_p50: float
    """Median time from raw outputs to detections, on real images."""

    load_ms: float
    """Time from an artifact's bytes to a session in a fresh process, the runtime's import not included. Median over
    rounds, as the other times of a start are."""

    pairs: int
    """Number of (reference, variant) pairs timed, over all rounds."""

    converged: bool
    """Whether the interval reached the wanted width before the time cap."""

    samples_ms: tuple[tuple[tuple[float, float], ...], ...]
    """(reference, variant) times of each pair, round by round; each the median of a block of inferences."""

    conditions: dict[str, float]
    """State of the machine while blocks were timed: load average, CPU steal share, ..."""

    import_ms: float | None = None
    """Time to import the runtime in a fresh process."""

    first_inference_ms: float | None = None
    """Time of the first inference after loading, in that process."""

    peak_memory_bytes: int | None = None
    """Most resident memory of that process over a few inferences, less what it held before the runtime's import."""

    noisy: tuple[str, ...] = ()
    """What was wrong with the conditions, a line each; empty for a run that can be trusted. A noisy latency is stored
    and shown, and never makes a winner."""

    attempts: int = 1
    """Which attempt this is, from 1: noisy ones are measured again, within a limit."""

    images_per_second: float | None = None
    """Throughput of the whole machine: all of `copies` together, running at the same time; inference alone."""

    copies: int | None = None
    """Processes that ran for the throughput, each with its own session and its own CPUs."""

    executed_mac_share: dict[str, float] | None = None
    """Share of multiply-accumulates by the arithmetic that the runtime really executes the artifact in, with its
    settings on this host, in the words of `Audit.mac_share`; None if the runtime does not tell."""

    def is_apart_from(self, other: "Latency") -> bool:
        """Tells whether the intervals of the two ratios do not overlap.

        Args:
            other: A latency beside the same reference.

        Returns:
            Whether the two are surely different.
        """
        return self.ratio_low > other.ratio_high or self.ratio_high < other.ratio_low


@dataclass(frozen=True)
class OperatorTime:
    """One operator of an artifact as a runtime executes it."""

    name: str
    """What the artifact or the runtime calls it; unique within a profile."""

    operator: str
    """Its kind in the runtime's words: `CONV_2D`, `QLinearConv`, `Convolution`, ..."""

    role: Literal["convolution", "conversion", "other"]
    """A conversion changes types or memory layouts and computes nothing: quantize, dequantize, cast, reorder, ...."""

    layer: str | None
    """Canonical name of the detector's layer that it belongs to, if it belongs to one."""

    arithmetic: str
    """What it computes in, in the words of `Audit.mac_share`; the element type of its output for other roles."""

    kernel: str
    """What executes it, in the runtime's words: `XNNPACK`, `reference`, `brgconv_avx512_core_amx_int8`, ..."""

    macs: int
    """Multiply-accumulates of one inference; 0 for other roles than convolution."""

    time_ms: float
    """Typical time in one inference: a median or a mean without the extremes, as `Profile.method` says."""

    is_fallback: bool
    """Whether it runs in float although the artifact stores its weights as integers, or on a kernel that was written to
    be read rather than to be fast (LiteRT's reference kernels)."""


@dataclass(frozen=True)
class Profile:
    """Where the time of one artifact goes on one host. Operators in order of execution."""

    operators: tuple[OperatorTime, ...]
    """All that take time."""

    total_ms: float
    """Median time of whole inferences of the same session, not profiled."""

    repeats: int
    """Inferences that each operator's time is of."""

    method: str
    """How times were taken, for readers: `prefixes of the graph`, `ONNX Runtime's profiler`, ..."""

    def share(self, chosen: Callable[[OperatorTime], bool]) -> float:
        """Returns the share of the operators' time that the chosen ones take, in [0, 1]."""
        total = sum(item.time_ms for item in self.operators)
        return sum(item.time_ms for item in self.operators if chosen(item)) / total if total else 0.0

    @property
    def fallback_share(self) -> float:
        """Share of the time in operators that fell back."""
        return self.share(lambda item: item.is_fallback)

    @property
    def conversion_share(self) -> float:
        """Share of the time in conversions of type or layout."""
        return self.share(lambda item: item.role == "conversion")


@dataclass(frozen=True)
class Comparison:
    """Two artifacts timed in turn, directly. Milliseconds an image."""

    first_ms_p50: float
    second_ms_p50: float
    """Medians of the inference times."""

    ratio: float
    """Second time / first time."""

    ratio_low: float
    ratio_high: float
    """95 % interval of `ratio`."""

    pairs: int
    """Number of pairs timed, over all rounds."""

    converged: bool
    """Whether the interval reached the wanted width before the time cap."""

    samples_ms: tuple[tuple[tuple[float, float], ...], ...]
    """(first, second) times of each pair, round by round."""

    conditions: dict[str, float]
    """State of the machine while blocks were timed."""

    noisy: tuple[str, ...] = ()
    """What was wrong with the conditions, a line each."""


@dataclass(frozen=True)
class Host:
    """The machine that a latency belongs to."""

    properties: dict[str, Any]
    """CPU model, ISA flags, cores, memory, kernel, versions; plain JSON values."""

    @property
    def fingerprint(self) -> str:
        """Key of the host."""
        return key_of(self.properties)

    @property
    def isa(self) -> tuple[str, ...]:
        """CPU features that compiled artifacts are for."""
        return tuple(self.properties["isa"])


@dataclass(frozen=True)
class Failure:
    """Why a task has no result. A failure is stored and shown like any result."""

    stage: str
    """Where it happened: `calibrate`, `train`, `quantize`, `detect`, `score` or `benchmark`."""

    reason: str
    """The `reason` of the error class."""

    message: str
    """One line for a person."""

    detail: str = ""
    """Traceback or log, for whoever has to find out."""

    @classmethod
    def of(cls, stage: str, error: TaskFailure, detail: str = "") -> "Failure":
        """Makes the stored form of an error.

        Args:
            stage: Where it happened.
            error: What was raised.
            detail: Traceback or log.

        Returns:
            The failure.
        """
        return cls(stage=stage, reason=error.reason, message=str(error), detail=detail)
