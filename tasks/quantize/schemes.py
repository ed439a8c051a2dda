"""Schemes: how an artifact is made from a detector. One frozen dataclass each; its fields are its axes."""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self, get_args

from tasks.quantize.estimators import check_estimator
from tasks.quantize.kept_layers import NONE as KEEP_NONE
from tasks.quantize.kept_layers import check_keep_float, is_ranked
from tasks.quantize.transforms.base import NONE as NO_TRANSFORM
from tasks.quantize.transforms.base import check_transform
from tasks.training.learner import Trainer
from tasks.training.recipe import SEEDS, Recipe

Toolchain = Literal[
    "converter", "litert_quantizer", "keras", "pt2e", "inductor", "eager", "quantize_dynamic", "onnx", "nncf",
    "onnxruntime",
]  # fmt: skip
"""Of the toolchains that make a scheme for a runtime, the first is the default where that of the scheme is none of
them."""

Granularity = Literal["per_channel", "per_tensor"]
Symmetry = Literal["asymmetric", "symmetric"]
WeightAlgorithm = Literal["min_max", "mse", "octav", "gptq", "oscar"]
EndType = Literal["float32", "int8", "uint8"]
MemoryLayout = Literal["channels_last", "contiguous"]
ActivationType = Literal["uint8", "int8"]
BiasCorrection = Literal["fast", "accurate", "none"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "toolchain": get_args(Toolchain),
    "granularity": get_args(Granularity),
    "symmetry": get_args(Symmetry),
    "weight_algorithm": get_args(WeightAlgorithm),
    "input_type": get_args(EndType),
    "output_type": get_args(EndType),
    "memory_layout": get_args(MemoryLayout),
    "activation_type": get_args(ActivationType),
    "bias_correction": get_args(BiasCorrection),
    "trainer": get_args(Trainer),
}
TOOLCHAINS_WITH = {
    "memory_layout": ("eager", "inductor", "pt2e", "quantize_dynamic"),
    "activation_type": ("onnxruntime",),
    "bias_correction": ("nncf",),
}
"""The toolchains that an axis exists under, where it does not exist under all."""

_CHECKS = {"range_estimator": check_estimator, "transform": check_transform, "keep_float": check_keep_float}


@dataclass(frozen=True)
class Scheme:
    """Base of all schemes.

    An axis may exist under conditions only (a fixed range estimator has no calibration images). Where it does not
    exist it has its default, so that schemes that differ there alone are equal.
    """

    name: ClassVar[str]
    """The identifier in specs, database and command line."""

    toolchain: Toolchain = "converter"
    """What makes the artifact: `converter` is TFLiteConverter, `litert_quantizer` is litert-quantizer, `keras` is the
    Keras build itself, `eager` the torch build itself, `inductor` is torch's AOTInductor, `pt2e` is torchao's PT2E
    before it, `quantize_dynamic` torch's function of that name before it, `onnx` is torch's ONNX exporter,
    `onnxruntime` is onnxruntime.quantization, `nncf` is OpenVINO's NNCF."""

    transform: str = NO_TRANSFORM
    """What is done to the float weights first: `none`, `equalized`, `clustered_16`, `binary`, ..."""

    memory_layout: MemoryLayout = "channels_last"
    """Order of the dimensions of torch's tensors in memory: NHWC (`channels_last`) or NCHW (`contiguous`)."""

    def __post_init__(self) -> None:
        """Resets absent axes and checks the others."""
        absent = self.absent_axes()
        for item in fields(self):
            if item.name in absent:
                object.__setattr__(self, item.name, item.default)
        axes = self.axes()
        for axis, choices in _CHOICES.items():
            if axis in axes and axes[axis] not in choices:
                raise ValueError(f"{axis} is {axes[axis]!r}; choices: {', '.join(choices)}")
        for axis, check in _CHECKS.items():
            if axis in axes:
                check(axes[axis])
        if axes.get("calibration_images", 1) < 1:
            raise ValueError(f"calibration_images is {axes['calibration_images']}; it must be at least 1")
        for axis in ("calibration_seed", "training_seed"):
            if not 0 <= axes.get(axis, 0) < SEEDS:
                raise ValueError(f"{axis} is {axes[axis]}; it must be at least 0 and below {SEEDS}")

    def absent_axes(self) -> frozenset[str]:
        """Returns the axes that do not exist under the values of the others."""
        return frozenset(axis for axis, toolchains in TOOLCHAINS_WITH.items() if self.toolchain not in toolchains)

    def axes(self) -> dict[str, Any]:
        """Returns the axes that exist and their values, in order of declaration."""
        absent = self.absent_axes()
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in absent}

    def keeping(self, keep_float: str) -> Self:
        """Returns the same scheme with other layers kept in float.

        Args:
            keep_float: As the axis of that name.

        Raises:
            ValueError: If the scheme has no such axis.
        """
        if "keep_float" not in self.axes():
            raise ValueError(f"{self.name} has no axis keep_float: it has no integer weights")
        values: dict[str, Any] = {"keep_float": keep_float}
        return replace(self, **values)

    @property
    def is_calibrated(self) -> bool:
        """Whether making it takes statistics of calibration images."""
        return "calibration_images" in self.axes()

    @property
    def needs_ranking(self) -> bool:
        """Whether the layers that it keeps in float are the most sensitive ones, which must be found out first."""
        return is_ranked(self.axes().get("keep_float", KEEP_NONE))

    @property
    def is_trained(self) -> bool:
        """Whether making it takes a training."""
        return False

    @property
    def is_simulated(self) -> bool:
        """Whether no kernel makes use of the weights' form, so that only size and AP say something about it."""
        return self.transform.startswith(("clustered", "binary"))


@dataclass(frozen=True)
class Float32(Scheme):
    """Float weights and activations, as trained: the reference."""

    name = "float32"


@dataclass(frozen=True)
class Float16(Scheme):
    """IEEE half precision: on LiteRT weights stored in half, computed in float32 where the CPU has no half kernels;
    on Keras the policy mixed_float16; on torch weights and activations in half.
    """

    name = "float16"


@dataclass(frozen=True)
class BFloat16(Scheme):
    """bfloat16 arithmetic: the Keras policy mixed_bfloat16 on float32 variables; on torch weights and activations."""

    name = "bfloat16"

    toolchain: Toolchain = "keras"
    """What makes the artifact."""


@dataclass(frozen=True)
class _Integer(Scheme):
    """Axes of every scheme with integer weights."""

    toolchain: Toolchain = "litert_quantizer"
    """What makes the artifact."""

    granularity: Granularity = "per_channel"
    """Whether each output channel of a weight tensor has its own scale."""

    weight_algorithm: WeightAlgorithm = "min_max"
    """How the range of the weights is chosen, or how they are rounded (`gptq`, `oscar`). Where weights are trained, the
    range cuts them off once, before."""

    keep_float: str = KEEP_NONE
    """Layers left in float: `none`, names or patterns joined by `|` (`Conv2d_0|BoxPredictor_*`), or
    `most_sensitive_3`."""


@dataclass(frozen=True)
class DynamicInt8(_Integer):
    """8-bit weights; activations quantized on the fly by their range in each inference."""

    name = "dynamic_int8"

    toolchain: Toolchain = "converter"
    """What makes the artifact."""


@dataclass(frozen=True)
class DynamicInt4(_Integer):
    """4-bit weights, 8-bit ones in depthwise layers, for which LiteRT has no 4-bit kernel; activations quantized to 8
    bits on the fly by their range in each inference.
    """

    name = "dynamic_int4"


@dataclass(frozen=True)
class WeightOnlyInt8(_Integer):
    """8-bit weights, widened to float32 before they are used; float arithmetic."""

    name = "weight_only_int8"


@dataclass(frozen=True)
class WeightOnlyInt4(_Integer):
    """4-bit weights, 8-bit ones in depthwise layers, widened to float32 before they are used; float arithmetic."""

    name = "weight_only_int4"


@dataclass(frozen=True)
class _Static(_Integer):
    """Axes of every scheme whose activations have ranges fixed beforehand."""

    range_estimator: str = "min_max"
    """How the range of an activation follows from its statistics: `min_max`, `moving_average`, `percentile_99_99` (any
    percentile), `mse`, `entropy`, or `fixed`, which takes no calibration images."""

    calibration_images: int = 64
    """Size of the representative dataset, in images."""

    calibration_seed: int = 0
    """Seed of the sample of calibration images; samples of one seed are nested."""

    def absent_axes(self) -> frozenset[str]:
        """See `Scheme.absent_axes`: fixed ranges take no calibration images."""
        absent = super().absent_axes()
        return absent | {"calibration_images", "calibration_seed"} if self.range_estimator == "fixed" else absent


@dataclass(frozen=True)
class StaticInt8(_Static):
    """8-bit weights and activations with ranges fixed from a representative dataset."""

    name = "static_int8"

    toolchain: Toolchain = "converter"
    """What makes the artifact."""

    symmetry: Symmetry = "asymmetric"
    """Whether the zero point of activations is 0 (`symmetric`) or free."""

    input_type: EndType = "float32"
    """Element type of the input tensor."""

    output_type: EndType = "float32"
    """Element type of the output tensors."""

    activation_type: ActivationType = "uint8"
    """Integers that hold activations, `QUInt8` or `QInt8` in ONNX Runtime's words."""

    bias_correction: BiasCorrection = "fast"
    """How NNCF moves biases to make up for the mean error of a layer: `fast`, layer by layer on its own inputs,
    `accurate`, on inputs that went through the layers quantized before it, or `none`."""


@dataclass(frozen=True)
class StaticInt4(_Static):
    """4-bit weights, 8-bit ones in depthwise layers, and 8-bit activations with ranges fixed from a representative
    dataset.
    """

    name = "static_int4"

    symmetry: Symmetry = "asymmetric"
    """Whether the zero point of activations is 0 (`symmetric`) or free."""


@dataclass(frozen=True)
class StaticInt8x16(_Static):
    """8-bit weights and 16-bit activations, which are always symmetric."""

    name = "static_int8x16"

    toolchain: Toolchain = "converter"
    """What makes the artifact."""


TRAINING_AXES = ("trainer", "epochs", "learning_rate", "distillation_weight", "freeze_point", "training_seed")
"""The axes of a training. Where nothing is trained, `epochs` alone exists, and is 0."""


@dataclass(frozen=True)
class Qat(_Static):
    """Base of quantization-aware training: float weights learn to do well once they are rounded.

    Training starts from the weights and ranges that post-training quantization has (`range_estimator` and calibration
    images give the first ranges), and moves both. With `epochs: 0` nothing is trained: the untrained twin, which has
    the structure, and so the latency, of everything that differs from it in training alone.
    """

    trainer: Trainer = "keras"
    """Framework that trains: `keras` is tf-keras with tensorflow-model-optimization, `torch` is torch with torchao. The
    result serves every toolchain."""

    epochs: int = 10
    """How often each training image is seen."""

    learning_rate: float = 1e-4
    """Peak of the learning rate."""

    distillation_weight: float = 1.0
    """Share of the float detector's answers in the loss, in [0, 1]; the rest is that of the labels; 1 needs none."""

    freeze_point: float = 0.5
    """Share of the updates after which the ranges of activations stay as they are, in [0, 1]."""

    training_seed: int = 0
    """Seed of the order and the augmentation of training images."""

    post_training: ClassVar[type[_Static]]
    """What makes the same without a training: the scheme of post-training quantization."""

    def __post_init__(self) -> None:
        """Checks the axes of the training, too."""
        super().__post_init__()
        self.recipe()

    def absent_axes(self) -> frozenset[str]:
        """See `Scheme.absent_axes`: what trains nothing has no other axes of training."""
        absent = super().absent_axes()
        return absent if self.epochs else absent | (frozenset(TRAINING_AXES) - {"epochs"})

    @property
    def is_trained(self) -> bool:
        """Whether making it takes a training."""
        return self.epochs > 0

    @property
    def learns_from_labels(self) -> bool:
        """Whether training takes annotated images."""
        return self.is_trained and self.distillation_weight < 1

    @property
    def untrained(self) -> Self:
        """The same scheme with nothing trained."""
        return replace(self, epochs=0)

    def recipe(self, **settings: Any) -> Recipe:
        """Returns how it is trained.

        Args:
            **settings: Fields of the recipe that are no axes.

        Raises:
            ValueError: If an axis is out of its range.
        """
        return Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            distillation_weight=self.distillation_weight,
            freeze_point=self.freeze_point,
            seed=self.training_seed,
            **settings,
        )


@dataclass(frozen=True)
class QatInt8(Qat, StaticInt8):
    """As `static_int8`, with weights trained for it."""

    name = "qat_int8"
    post_training = StaticInt8

    toolchain: Toolchain = "converter"
    """What makes the artifact."""


@dataclass(frozen=True)
class QatInt4(Qat, StaticInt4):
    """As `static_int4`, with weights trained for it."""

    name = "qat_int4"
    post_training = StaticInt4


SCHEMES: dict[str, type[Scheme]] = {
    scheme.name: scheme
    for scheme in (
        Float32, Float16, BFloat16, DynamicInt8, DynamicInt4, WeightOnlyInt8, WeightOnlyInt4, StaticInt8, StaticInt4,
        StaticInt8x16, QatInt8, QatInt4,
    )
}  # fmt: skip
"""Every scheme by its identifier."""
