"""Hand-made results of a small sweep, with numbers chosen so that losses and ratios are plain to see."""

import math
from dataclasses import dataclass, replace

from results.store import Store
from results.sweep_record import SweepRecord, variant_key
from tasks.identity import key_of
from tasks.quantize.schemes import DynamicInt8, Float16, Float32, QatInt8, Scheme, StaticInt4, StaticInt8
from tasks.types import (
    Accuracy,
    Artifact,
    Audit,
    Comparison,
    Failure,
    Host,
    Latency,
    LayerSensitivity,
    LossInterval,
    OperatorTime,
    Profile,
    RuntimeSettings,
    TrainingEnd,
    TrainingPoint,
    TrainingProgress,
    Variant,
    Verdict,
)

DETECTOR = key_of("detector")
DATASET = key_of("dataset")
HOST = Host({"cpu": "one", "cores": 2})
OTHER_HOST = Host({"cpu": "another", "cores": 64})

REFERENCE = Variant(Float32())
FLOAT16 = Variant(Float16())
DYNAMIC = Variant(DynamicInt8())
STATIC = Variant(StaticInt8())
PER_TENSOR = Variant(StaticInt8(granularity="per_tensor"))
THREADS = Variant(Float32(), RuntimeSettings(threads=2))
VARIANTS = (REFERENCE, FLOAT16, DYNAMIC, STATIC, PER_TENSOR, THREADS)

AUDIT = Audit(
    mac_share={"int8": 0.75, "float32": 0.25},
    weight_share={"int8": 1.0},
    granularity="per_channel",
    operators={"CONV_2D": 34, "DEPTHWISE_CONV_2D": 13},
    macs=1_234_567_890,
    input_type="float32",
    output_types={"boxes": "float32", "scores": "float32"},
    layers={"Conv2d_0": "float32", "Conv2d_1_depthwise": "int8", "Conv2d_1_pointwise": "int8"},
    codebook_size=255,
)

FAILURE = Failure("quantize", "audit_mismatch", "the file is float", "a log")
LOST = Failure("benchmark", "worker_lost", "the worker died three times")


def artifact(name: str) -> Artifact:
    return Artifact(key_of("artifact", name), "tflite", 7_000_000, 6_000_000, key_of("structure", name), AUDIT)


def accuracy(name: str, ap: float, small: float = -1.0, class_ap: dict[int, float] | None = None) -> Accuracy:
    statistics = (ap, ap + 0.1, ap, small, ap, ap, ap, ap, ap, small, ap, ap)
    per_class = {1: ap, 2: -1.0} if class_ap is None else class_ap
    return Accuracy(statistics, per_class, 80, 4000, key_of("detections", name), "hotcoco 1.3.0")


def latency(ratio: float, **changed: object) -> Latency:
    found = Latency(
        latency_ms_p50=20 * ratio, latency_ms_p90=21 * ratio, latency_ms_p99=22 * ratio, reference_ms_p50=20.0,
        ratio=ratio, ratio_low=ratio - 0.01, ratio_high=ratio + 0.01, postprocessing_ms_p50=1.5, load_ms=3.0,
        pairs=3, converged=True,
        samples_ms=(((20.0, 20.0 * ratio), (20.5, 20.5 * ratio)), ((21.0, 21.0 * ratio),)), conditions={"load": 0.5},
        import_ms=250.0, first_inference_ms=25.0, peak_memory_bytes=48 * 2**20, images_per_second=100.0 / ratio,
        copies=2, executed_mac_share={"int8": 0.5, "dynamic_int8": 0.125, "float32": 0.375},
    )  # fmt: skip
    return replace(found, **changed)  # type: ignore[arg-type]


NOISE = ("other processes used 50% of the machine", "the hypervisor took 9% of the CPU time")

PROFILE = Profile(
    (
        OperatorTime("quantize", "QUANTIZE", "conversion", None, "int8", "XNNPACK", 0, 1.0, False),
        OperatorTime("Conv2d_0/conv", "CONV_2D", "convolution", "Conv2d_0", "float32", "reference", 4_000_000, 4.0,
                     True),
        OperatorTime("Conv2d_1/conv", "CONV_2D", "convolution", "Conv2d_1_pointwise", "int8", "XNNPACK", 8_000_000, 2.0,
                     False),
        OperatorTime("Conv2d_2/conv", "CONV_2D", "convolution", "Conv2d_2_pointwise", "int8", "XNNPACK", 6_000_000, 1.0,
                     False),
    ),
    total_ms=9.0, repeats=30, method="prefixes of the graph",
)  # fmt: skip
"""Half of the operators' time is a fallback, an eighth a conversion."""

COMPARISON = Comparison(
    first_ms_p50=18.0, second_ms_p50=20.0, ratio=1.12, ratio_low=1.10, ratio_high=1.14, pairs=3, converged=True,
    samples_ms=(((18.0, 20.0), (18.5, 20.5)), ((18.0, 20.5),)), conditions={"load": 0.5},
)  # fmt: skip
"""The second takes 12 % more time."""


@dataclass(frozen=True)
class Measured:
    """What one variant of the sample sweep gave."""

    variant: Variant
    ap: float
    ratio: float
    host: Host = HOST
    noisy: tuple[str, ...] = ()


MEASURED = (
    Measured(REFERENCE, ap=0.500, ratio=1.00),
    Measured(FLOAT16, ap=0.500, ratio=0.90),
    Measured(DYNAMIC, ap=0.490, ratio=0.80),
    Measured(STATIC, ap=0.400, ratio=0.50),
)
"""The loss of DYNAMIC equals the budget; STATIC is over it; REFERENCE is beaten by FLOAT16."""

INTERVAL = LossInterval(0.1, 0.07, 0.13, 0.95, 2000, 0, 80)
"""How far the loss of STATIC could move."""

SENSITIVE = StaticInt4()
LAYERS = (
    LayerSensitivity("Conv2d_0", 20.0, 22.0, 20.0, 0.1, 0.45, 0.05),
    LayerSensitivity("Conv2d_1_depthwise", 10.0, 10.0, 18.0, 0.3, 0.35, 0.15),
    LayerSensitivity("Conv2d_1_pointwise", math.inf, math.inf, math.inf, 0.6, 0.5, 0.0),
)
"""Layers of the sample detector, in order: the second is the most sensitive, the third has no noise."""


def register(store: Store) -> None:
    """Stores the detector and the evaluation set."""
    store.put_detector(DETECTOR, "sample", {"depth_multiplier": 0.25}, 1_000, 5_000_000_000)
    store.put_dataset(DATASET, "sample set", 80, {1: "cat"}, "annotations.json")


def begin(store: Store, name: str = "sample", **changed: object) -> str:
    """Starts the sample sweep."""
    arguments: dict[str, object] = {
        "name": name, "spec": "name: sample", "detector_sha256": DETECTOR, "dataset_fingerprint": DATASET,
        "variants": VARIANTS, "reference": REFERENCE, "artifacts_url": "./artifacts", "provenance": {"seed": 0},
        "budget_metric": "AP", "budget_max_loss": 0.01,
    }  # fmt: skip
    return store.begin_sweep(SweepRecord(**(arguments | changed)))  # type: ignore[arg-type]


def measure(store: Store, sweep: str, measured: Measured) -> None:
    """Stores everything of one variant and settles it."""
    label = measured.variant.label
    made = artifact(label)
    keys = {name: key_of(name, label) for name in ("request", "accuracy", "latency")}
    store.put_artifact(keys["request"], DETECTOR, measured.variant.scheme, {"tensorflow": "2.21"}, made, 8.5)
    scores = accuracy(label, measured.ap, class_ap={1: measured.ap, 2: -1.0})
    store.put_accuracy(keys["accuracy"], made.sha256, DATASET, scores, {"score_threshold": 0.01})
    settings = {"threads": measured.variant.settings.threads}
    timed = latency(measured.ratio, noisy=measured.noisy)
    store.put_latency(keys["latency"], made.structure_sha256, settings, measured.host, timed)
    store.settle_variant(
        sweep,
        variant_key(DETECTOR, measured.variant),
        "done",
        request_key=keys["request"],
        accuracy_key=keys["accuracy"],
        latency_key=keys["latency"],
    )


def fail(store: Store, sweep: str, variant: Variant, failure: Failure = FAILURE) -> None:
    """Stores that a variant failed."""
    key = key_of("request", variant.label)
    store.put_failure(key, failure)
    store.settle_variant(sweep, variant_key(DETECTOR, variant), "failed", request_key=key, failure_key=key)


def put_interval(store: Store, key: str = "interval", interval: LossInterval = INTERVAL) -> None:
    """Stores how far the loss of STATIC could move."""
    store.put_loss_interval(
        key_of(key), key_of("accuracy", STATIC.label), key_of("accuracy", REFERENCE.label), interval
    )


def put_profile(store: Store, variant: Variant = STATIC) -> None:
    """Stores where the time of a variant goes."""
    store.put_profile(key_of("latency", variant.label), PROFILE)


def put_comparison(
    store: Store,
    comparison: Comparison = COMPARISON,
    first: Variant = STATIC,
    second: Variant = FLOAT16,
    host: Host = HOST,
    key: str = "comparison",
) -> None:
    """Stores a direct comparison of two variants."""
    sides = [(each.label, artifact(each.label), each.settings) for each in (first, second)]
    store.put_comparison(key_of(key), sides[0], sides[1], host, comparison)


def put_sensitivity(
    store: Store, key: str = "sensitivity", scheme: Scheme = SENSITIVE, layers: tuple[LayerSensitivity, ...] = LAYERS
) -> None:
    """Stores what quantizing each layer alone does, AP included."""
    store.put_sensitivity(
        key_of(key), DETECTOR, scheme, {"litert-quantizer": "0.11"}, {"images": 64, "seed": 0}, layers, DATASET, 80, 0.5
    )


def fill(store: Store, **changed: object) -> str:
    """Stores the whole sample sweep: four measured variants, one failed (PER_TENSOR), one pending (THREADS)."""
    register(store)
    sweep = begin(store, **changed)
    for measured in MEASURED:
        measure(store, sweep, measured)
    fail(store, sweep, PER_TENSOR)
    put_interval(store)
    put_profile(store)
    put_comparison(store)
    put_sensitivity(store)
    return sweep


PARTIAL = Verdict("infeasible", 40, 80, LossInterval(0.045, 0.02, 0.07, 0.99, 1000, 3, 40), "loses 0.0200 to 0.0700")
"""Decided on half of the images."""

NO_GAIN = Verdict("no_gain", 0, 80, None, "takes 0.900 of float32's time, another 0.880")
"""Decided by the latency alone."""

FEASIBLE = Verdict("feasible", 80, 80, LossInterval(0.01, -0.005, 0.02, 0.95, 1000, 3, 80), "loses 0.0100")
"""Decided on every image: the loss of DYNAMIC."""

UNSUPPORTED = Verdict("unsupported", 0, 80, None, "quantize: audit_mismatch: the file is float")


def stop(store: Store, sweep: str, measured: Measured, verdict: Verdict, trial: int | None, inferred: int) -> None:
    """Stores artifact and latency of one variant, and that a search gave it up."""
    label = measured.variant.label
    made = artifact(label)
    request, timed = key_of("request", label), key_of("latency", label)
    store.put_artifact(request, DETECTOR, measured.variant.scheme, {"tensorflow": "2.21"}, made, 8.5)
    settings = {"threads": measured.variant.settings.threads}
    store.put_latency(
        timed, made.structure_sha256, settings, measured.host, latency(measured.ratio, noisy=measured.noisy)
    )
    keys = {"request_key": request, "latency_key": timed}
    store.settle_variant(
        sweep, variant_key(DETECTOR, measured.variant), "stopped", **keys, verdict=verdict, trial=trial,
        inferred=inferred,
    )  # fmt: skip


CONFIRMATION = key_of("confirmation images")


def confirm(store: Store, sweep: str, variant: Variant, ap: float) -> str:
    """Stores the AP of a variant on the confirmation images, and returns its key."""
    made, key = artifact(variant.label), key_of("confirmation", variant.label)
    scores = replace(accuracy(f"confirmation {variant.label}", ap), images=20)
    store.put_accuracy(key, made.sha256, CONFIRMATION, scores, {"score_threshold": 0.01})
    store.put_confirmation(sweep, variant_key(DETECTOR, variant), key)
    return key


def fill_study(store: Store, name: str = "study", **changed: object) -> str:
    """Stores a study of the sample variants: DYNAMIC wins and is confirmed, STATIC is stopped on half of the images,
    FLOAT16 by its latency, PER_TENSOR is unsupported, and THREADS was not asked for."""
    register(store)
    store.put_dataset(CONFIRMATION, "confirmation set", 20, {1: "cat"}, "more.json")
    sweep = begin(store, name=name, **{"kind": "study", "confirm_fingerprint": CONFIRMATION} | changed)
    measure(store, sweep, MEASURED[0])
    stop(store, sweep, MEASURED[3], PARTIAL, trial=0, inferred=120)
    measure(store, sweep, MEASURED[2])
    store.put_verdict(sweep, variant_key(DETECTOR, DYNAMIC), FEASIBLE, trial=1, inferred=80)
    stop(store, sweep, MEASURED[1], NO_GAIN, trial=2, inferred=0)
    fail(store, sweep, PER_TENSOR)
    store.put_verdict(sweep, variant_key(DETECTOR, PER_TENSOR), UNSUPPORTED, trial=3, inferred=0)
    before, after = (confirm(store, sweep, variant, ap) for variant, ap in ((REFERENCE, 0.48), (DYNAMIC, 0.46)))
    store.put_loss_interval(key_of("confirmed"), after, before, LossInterval(0.02, -0.01, 0.05, 0.95, 1000, 0, 20))
    return sweep


def moved(measured: Measured, host: Host) -> Measured:
    """The same result on another host."""
    return replace(measured, host=host)


UNTRAINED = Variant(QatInt8(epochs=0))
KERAS = Variant(QatInt8(trainer="keras"))
TORCH = Variant(QatInt8(trainer="torch", learning_rate=0.001))
HOPELESS = Variant(QatInt8(trainer="torch", learning_rate=1.0))
TRAINED = (REFERENCE, UNTRAINED, KERAS, TORCH, HOPELESS)

CURVE = (
    TrainingPoint(0, 4.0, None, None, None, None, None, None, 0.0, 0.0),
    TrainingPoint(10, 3.0, 5.5, 1.0, 2.5, 2.0, 1e-4, 20.0, 450.0, 900.0),
    TrainingPoint(20, 2.0, 4.5, 0.5, 2.0, 2.0, 5e-5, 25.0, 800.0, 1600.0),
    TrainingPoint(30, 2.5, 4.0, 0.5, 1.5, 2.0, 0.0, 25.0, 900.0, 1800.0),
)
"""A learning curve that is at its best after 20 of 30 updates, and costs half a core-hour."""

UNPROMISING = Verdict("unpromising", 0, 80, None, "it diverges")


def progress(points: int = 4, end: TrainingEnd | None = None) -> TrainingProgress:
    """How far a training of that curve is after some of its points."""
    curve = CURVE[:points]
    best = min(curve, key=lambda point: point.held_out_loss).step
    return TrainingProgress(curve, 30, 208, 21, "cpu", best, key_of("trained", best), end)


def training_key(variant: Variant) -> str:
    """Key of the training of a variant."""
    return key_of("training", variant.label)


def put_training(
    store: Store, key: str, progress: TrainingProgress, stopped_because: str | None = None, trainer: str = "keras"
) -> None:
    """Stores how far a training is."""
    recipe = {"epochs": 10, "batch_size": 8, "loss": {"balance": "hard_negatives"}}
    versions = {"tensorflow": "2.21"}
    store.put_training(key, DETECTOR, trainer, recipe, key_of("training images"), versions, progress, stopped_because)


def train(store: Store, sweep: str, measured: Measured) -> None:
    """Stores a finished training, and everything of the variant that was made of it."""
    key, label = training_key(measured.variant), measured.variant.label
    put_training(store, key, progress(end="finished"))
    measure(store, sweep, measured)
    scheme = measured.variant.scheme
    store.put_artifact(key_of("request", label), DETECTOR, scheme, {"tensorflow": "2.21"}, artifact(label), 8.5, key)


def stop_training(store: Store, sweep: str, variant: Variant) -> None:
    """Stores a training that was ended after two points, and that a search gave its variant up for it."""
    key, twin = training_key(variant), artifact(UNTRAINED.label)
    put_training(store, key, progress(2), "it diverges")
    store.put_latency(key_of("latency", variant.label), twin.structure_sha256, {}, HOST, latency(0.5))
    store.settle_variant(
        sweep, variant_key(DETECTOR, variant), "stopped", latency_key=key_of("latency", variant.label),
        training_key=key, verdict=UNPROMISING, trial=3,
    )  # fmt: skip


def fill_trained(store: Store, name: str = "trained", **changed: object) -> str:
    """Stores a study of quantization-aware training: KERAS gains 0.06 over UNTRAINED and TORCH 0.03, and the training
    of HOPELESS was ended."""
    register(store)
    sweep = begin(store, name=name, **{"kind": "study", "variants": TRAINED} | changed)
    measure(store, sweep, MEASURED[0])
    measure(store, sweep, Measured(UNTRAINED, ap=0.40, ratio=0.5))
    train(store, sweep, Measured(KERAS, ap=0.46, ratio=0.5))
    train(store, sweep, Measured(TORCH, ap=0.43, ratio=0.5))
    stop_training(store, sweep, HOPELESS)
    return sweep
