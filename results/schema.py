"""The tables of the database. Every column is documented where it is declared; units are in the names.

Keys are sha256 in hexadecimal. Statistics are stored exactly as the scorer gave them, -1 where there was nothing to
score; the views (`results.views`) show NULL instead.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

HEAD = "0006"
"""Newest revision of the migrations; revisions are numbers, so that older and newer can be told apart."""

VERSION_TABLE = "quantsweep_alembic_version"
"""Where Alembic keeps the revision. Not Alembic's default: Optuna uses that in the same database."""

STATISTICS = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
"""Columns of the 12 COCO statistics, in pycocotools' order."""

STATISTICS_MEANING = (
    "Average precision over IoU .50 to .95", "Average precision at IoU .50", "Average precision at IoU .75",
    "AP of objects below 32 x 32 pixels", "AP of objects between 32 x 32 and 96 x 96 pixels",
    "AP of objects above 96 x 96 pixels", "Average recall with 1 detection an image",
    "Average recall with 10 detections an image", "Average recall with 100 detections an image",
    "AR of objects below 32 x 32 pixels", "AR of objects between 32 x 32 and 96 x 96 pixels",
    "AR of objects above 96 x 96 pixels",
)  # fmt: skip
"""What each of them says."""

AXES: dict[str, tuple[type[Text | Integer | Double[float]], str]] = {
    "granularity": (Text, "per_channel or per_tensor; NULL where the scheme has none"),
    "symmetry": (Text, "Zero point of activations: asymmetric (free) or symmetric (0); NULL where the scheme has none"),
    "range_estimator": (Text, "How ranges of activations follow from their statistics; NULL where the scheme has none"),
    "weight_algorithm": (Text, "How ranges of weights are chosen, or how weights are rounded; NULL without integers"),
    "calibration_images": (Integer, "Size of the calibration set in images; NULL if none is used"),
    "calibration_seed": (BigInteger, "Seed of the calibration sample; NULL if none is used"),
    "input_type": (Text, "Element type of the input tensor; NULL where the scheme has no choice: float32"),
    "output_type": (Text, "Element type of the output tensors; NULL where the scheme has no choice: float32"),
    "keep_float": (Text, "Layers left in float: none, names and patterns, or most_sensitive_N; NULL without integers"),
    "transform": (Text, "What was done to the float weights first: none, equalized, clustered_16, binary, ..."),
    "memory_layout": (Text, "Order of torch's dimensions in memory: channels_last or contiguous; NULL without torch"),
    "activation_type": (Text, "Integers of activations in ONNX Runtime: uint8 or int8; NULL where there is no choice"),
    "bias_correction": (Text, "How NNCF moves biases: fast, accurate or none; NULL under other toolchains"),
    "trainer": (Text, "Framework of the training: keras or torch; NULL where nothing is trained"),
    "epochs": (Integer, "How often each training image is seen; 0 in untrained twins, NULL outside of QAT"),
    "learning_rate": (Double, "Peak of the learning rate; NULL where nothing is trained"),
    "distillation_weight": (Double, "Share of the float detector's answers in the loss; NULL where nothing is trained"),
    "freeze_point": (Double, "Share of the updates after which ranges stay; NULL where nothing is trained"),
    "training_seed": (BigInteger, "Seed of order and augmentation of training images; NULL where nothing is trained"),
}
"""Axes of a scheme, as `Scheme.axes` names them, with a column each; NULL where the axis does not exist."""

SIMULATED_MEANING = "Whether no kernel makes use of the weights' form: AP and sizes are true, latency is as without"
"""What the column `simulated` says."""

LOAD_MEANING = "Time in ms from the artifact's bytes to a session in a fresh process, the runtime's import not included"
"""What the column `load_ms` says."""

THROUGHPUT_MEANING = "Images a second of the whole machine, all copies together, inference alone; NULL if not measured"
"""What the column `images_per_second` says."""

COPIES_MEANING = "Processes that ran at the same time for images_per_second, each on its own CPUs; NULL if not measured"
"""What the column `copies` says."""

ATTEMPTS_MEANING = "Which attempt this is, from 1: noisy ones are measured again, within a limit"
"""What the columns `attempts` and `latency_attempts` say."""

FALLBACK_MEANING = (
    "Share of the operators' time in fallbacks: float although the weights are stored as integers, or reference "
    "kernels; in [0, 1]"
)
"""What the column `fallback_share` says."""

CONVERSION_MEANING = "Share of the operators' time in conversions of types or memory layouts, in [0, 1]"
"""What the column `conversion_share` says."""

EXECUTED_INT8_MEANING = (
    "Share of multiply-accumulates that the runtime really executes in int8 (static or dynamic) with these settings "
    "on this host, in [0, 1]; NULL if it does not tell"
)
"""What the column `executed_int8_mac_share` says."""

RUNTIME_OPTIONS_MEANING = "Options of the runtime that are not at their default, as name=value joined by commas"
"""What the column `runtime_options` says."""

OPERATOR: tuple[tuple[str, Any, str, bool], ...] = (
    ("name", Text, "What the artifact or the runtime calls it", False),
    ("operator", Text, "Its kind in the runtime's words: CONV_2D, QLinearConv, ...", False),
    ("role", Text, "convolution, conversion (of types or memory layouts; computes nothing) or other", False),
    ("layer", Text, "Canonical name of the detector's layer that it belongs to; NULL if it belongs to none", True),
    ("arithmetic", Text, "What it computes in: int8, float32, ...; other roles: element type of its output", False),
    ("kernel", Text, "What executes it, in the runtime's words", False),
    ("macs", BigInteger, "Multiply-accumulates of one inference; 0 unless it is a convolution", False),
    ("time_ms", Double, "Median time in ms in one inference", False),
    ("is_fallback", Boolean, "Whether it is in float although its weights are integers, or a reference kernel", False),
)
"""Columns of an operator: name, type, meaning, and whether it may be NULL."""

STATUSES = ("pending", "done", "stopped", "failed")
"""States of a variant in a sweep."""

STATUS_MEANING = (
    "pending, done, stopped (it, or its untrained twin, was made and timed, and it was not scored on every image), or "
    "failed"
)
"""What the columns `status` say."""

KINDS = ("sweep", "study", "find_best")
"""What measures a list of variants: all of them, some that a sampler chooses, or the fastest ones."""

KIND_MEANING = (
    "sweep (every variant is measured), study (a sampler chooses) or find_best (in order of latency, until one is "
    "within the budget)"
)
"""What the columns `kind` of sweeps say."""

VERDICT_MEANING = (
    "feasible, infeasible, dominated (surely slower than a feasible one), no_gain (not faster than a feasible one, "
    "within the error of measurement), unpromising (its training was ended, since it went badly), noisy, unsupported, "
    "failed, or unsettled (the search ended first)"
)
"""What was decided about a variant."""

STAGE_MEANING = "Where it happened: calibrate, train, quantize, detect, score, benchmark"
"""What the columns `stage` say."""

TRAINING_STATUSES = ("running", "finished", "no_better", "stopped")
"""States of a training."""

TRAINING_STATUS_MEANING = (
    "running (or interrupted), finished, no_better (the held-out loss did not fall any more) or stopped (nobody waited "
    "for it any longer)"
)
"""What the column `status` of trainings says."""

SHOWN_TRAINING_MEANING = f"{TRAINING_STATUS_MEANING}; or failed, if that is the latest that is known of it"
"""What readers see of it."""

CURVE: tuple[tuple[str, Any, str, bool], ...] = (
    ("step", Integer, "Updates done", False),
    (
        "held_out_loss",
        Double,
        "Total loss of the recipe on held-out training images, not augmented",
        False,
    ),
    ("loss", Double, "Mean total loss of the updates since the point before; NULL at the first point", True),
    ("box_loss", Double, "Its part of the boxes against the labels", True),
    ("score_loss", Double, "Its part of the scores against the labels", True),
    ("distillation_loss", Double, "Its part against the float detector's answers", True),
    ("learning_rate", Double, "Learning rate of the last update; NULL at the first point", True),
    ("images_per_second", Double, "Training images a second of wall time since the point before", True),
    ("seconds", Double, "Wall time of the training so far in seconds, work of lost workers not included", False),
    ("core_seconds", Double, "CPU time of the training so far in seconds, all threads together", False),
)
"""Columns of a point of a learning curve: name, type, meaning, and whether it may be NULL."""

INFERRED_MEANING = "Images that went through the artifact for its sake in this search; 0 where all was known already"
"""What the columns `inferred` say."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite, which knows no time zones, holds it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Converts to UTC."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Marks as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_KEY = String(64)
_JSON = JSON(none_as_null=True)

tables = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)
"""What the store writes."""


def _column(
    name: str, kind: Any, comment: str, *constraints: ForeignKey, null: bool = False, **more: Any
) -> Column[Any]:
    return Column(name, kind, *constraints, nullable=null, comment=comment, **more)


def _key(comment: str, name: str = "key") -> Column[Any]:
    return Column(name, _KEY, primary_key=True, comment=comment)


def _refers(name: str, target: str, comment: str, null: bool = False, index: bool = False) -> Column[Any]:
    return _column(name, _KEY, comment, ForeignKey(target), null=null, index=index)


def _side(side: str) -> Iterator[Column[Any]]:
    yield _column(f"{side}_label", Text, f"Label of the {side} variant")
    yield _refers(f"{side}_artifact_sha256", "artifacts.sha256", f"The {side} artifact", index=True)
    yield _column(f"{side}_structure_sha256", _KEY, f"Structure of the {side} artifact")
    yield _column(f"{side}_settings", _JSON, f"Runtime, threads and options of the {side}")


def _axes() -> Iterator[Column[Any]]:
    for name, (kind, comment) in AXES.items():
        yield _column(name, kind, comment, null=True)


detectors = Table(
    "detectors",
    tables,
    _key("sha256 of the canonical safetensors file", "sha256"),
    _column("name", Text, "Name for people, usually the file's name"),
    _column("spec", _JSON, "Architecture: depth multiplier, image size, classes, anchors"),
    _column("parameters", BigInteger, "Number of weights and biases, batch norm folded"),
    _column("macs", BigInteger, "Multiply-accumulates of one inference"),
    comment="Float detectors that variants are made from",
)

datasets = Table(
    "datasets",
    tables,
    _key("sha256 of the images' bytes, their ids and the annotations", "fingerprint"),
    _column("name", Text, "Name for people"),
    _column("images", Integer, "Number of images"),
    _column("categories", _JSON, "Category names by category id"),
    _column("annotations", Text, "Where the annotations were read from"),
    comment="Evaluation sets",
)

artifacts = Table(
    "artifacts",
    tables,
    _key("sha256 of the file", "sha256"),
    _column("format", Text, "File format, which is its suffix without the dot"),
    _column("size_bytes", BigInteger, "Size of the file in bytes"),
    _column("compressed_bytes", BigInteger, "Size in bytes after zlib at level 6"),
    _column(
        "structure_sha256", _KEY, "Hash of the graph without the values of weights, scales and zero points", index=True
    ),
    _column(
        "int8_mac_share", Double, "Share of multiply-accumulates in int8 arithmetic (static or dynamic), in [0, 1]"
    ),
    _column(
        "quantized_mac_share",
        Double,
        "Share of multiply-accumulates not in float arithmetic (weight-only schemes are), in [0, 1]",
        server_default="0",
    ),
    _column("audit", _JSON, "What the file really holds, read back from its bytes"),
    comment="Model files in artifact storage",
)

trainings = Table(
    "trainings",
    tables,
    _key("sha256 of detector, scheme, recipe, images and versions"),
    _refers("detector_sha256", "detectors.sha256", "The detector that it starts from", index=True),
    _column("trainer", Text, "Framework: keras or torch"),
    _column("recipe", _JSON, "All fields of the recipe"),
    _column("dataset_fingerprint", Text, "The training images and their annotations; not a row of datasets"),
    _column("images", Integer, "Training images, those held out included"),
    _column("held_out_images", Integer, "Of these, kept apart to see when training stops helping"),
    _column("steps", Integer, "Updates planned"),
    _column("step", Integer, "Updates done"),
    _column("best_step", Integer, "Updates done at the lowest held-out loss: the weights that are kept"),
    _column("best_held_out_loss", Double, "Held-out loss there"),
    _column("first_held_out_loss", Double, "Held-out loss before the first update"),
    _column("trained_sha256", _KEY, "The best weights and ranges: their file in artifact storage"),
    _column("device", Text, "Where it computes: cpu, or the name of the GPU"),
    _column("status", Text, TRAINING_STATUS_MEANING),
    _column("stopped_because", Text, "Why it was stopped, in one line; NULL unless it was", null=True),
    _column("seconds", Double, "Wall time in seconds, work of lost workers not included"),
    _column("core_seconds", Double, "CPU time in seconds, all threads together: what it cost"),
    _column("versions", _JSON, "Versions of the packages that decide about the weights"),
    _column("updated_at", UtcDateTime, "When its latest point or its end was stored (UTC)"),
    CheckConstraint("status IN ('running', 'finished', 'no_better', 'stopped')", name="status"),
    CheckConstraint("(status = 'stopped') = (stopped_because IS NOT NULL)", name="stopped_because"),
    comment="Trainings, each of which many variants may share; one that failed is in failure_records under its key",
)

training_points = Table(
    "training_points",
    tables,
    Column(
        "training_key", _KEY, ForeignKey("trainings.key", ondelete="CASCADE"), nullable=False, comment="The training"
    ),
    *(_column(name, kind, comment, null=null) for name, kind, comment, null in CURVE),
    PrimaryKeyConstraint("training_key", "step"),
    comment="Learning curves, point by point",
)

artifact_requests = Table(
    "artifact_requests",
    tables,
    _key("sha256 of detector, scheme, calibration images and toolchain versions"),
    _refers("detector_sha256", "detectors.sha256", "The float detector"),
    _column("scheme", _JSON, "The scheme with all its axes"),
    _column("versions", _JSON, "Versions of the packages that decide about the bytes"),
    _refers("artifact_sha256", "artifacts.sha256", "The file that came out", index=True),
    _column("build_seconds", Double, "Wall time of the build in seconds, calibration and training not included"),
    _refers("training_key", "trainings.key", "The training that gave the weights; NULL if none did", null=True),
    comment="Which request gave which artifact; a request that failed is in failure_records under the same key",
)

accuracies = Table(
    "accuracies",
    tables,
    _key("sha256 of artifact, evaluation set, preprocessing, postprocessing and runtime version"),
    _refers("artifact_sha256", "artifacts.sha256", "The artifact that was evaluated", index=True),
    _refers("dataset_fingerprint", "datasets.fingerprint", "The evaluation set"),
    *(
        _column(name, Double, f"{meaning}, in [0, 1]; -1 if there is nothing to score")
        for name, meaning in zip(STATISTICS, STATISTICS_MEANING, strict=True)
    ),
    _column("images", Integer, "Number of images evaluated"),
    _column("detections", BigInteger, "Number of detections scored"),
    _column("detections_sha256", _KEY, "The detections' file in artifact storage"),
    _column("scorer", Text, "What computed the statistics, with its version"),
    _column(
        "confirmed_by", Text, "Reference scorer that gave the same statistics, with its version; or NULL", null=True
    ),
    _column("settings", _JSON, "Preprocessing, postprocessing and runtime versions"),
    comment="COCO statistics of one artifact on one evaluation set",
)

class_accuracies = Table(
    "class_accuracies",
    tables,
    Column(
        "accuracy_key", _KEY, ForeignKey("accuracies.key", ondelete="CASCADE"), nullable=False, comment="The evaluation"
    ),
    _column("category_id", BigInteger, "Category id as in the annotations", autoincrement=False),
    _column("name", Text, "Category name; NULL if the annotations do not name it", null=True),
    _column("ap", Double, "AP of this category, in [0, 1]; -1 if it has no objects"),
    PrimaryKeyConstraint("accuracy_key", "category_id"),
    comment="AP by category",
)

loss_intervals = Table(
    "loss_intervals",
    tables,
    _key("sha256 of accuracy, reference accuracy and method"),
    _refers("accuracy_key", "accuracies.key", "The evaluation", index=True),
    _refers("reference_accuracy_key", "accuracies.key", "The reference's evaluation on the same images"),
    _column("loss", Double, "AP of the reference minus AP, in [-1, 1]; positive is worse"),
    _column("low", Double, "Lower end of the interval of the loss"),
    _column("high", Double, "Upper end of the interval of the loss"),
    _column("level", Double, "Nominal coverage of the interval, in (0, 1)"),
    _column("resamples", Integer, "Number of bootstrap resamples drawn"),
    _column("seed", BigInteger, "Seed of the draws"),
    _column("images", Integer, "Number of images that each resample draws from, and as many as it draws"),
    _column("method", Text, "How the interval was computed"),
    _column("created_at", UtcDateTime, "When it was computed last (UTC); the views show the latest"),
    comment="How far the AP loss could move if other images had been drawn",
)

hosts = Table(
    "hosts",
    tables,
    _key("sha256 of the properties", "fingerprint"),
    _column("properties", _JSON, "CPU model, ISA flags, cores, memory, kernel, versions"),
    comment="Machines that latencies were measured on",
)

latencies = Table(
    "latencies",
    tables,
    _key("sha256 of artifact structure, runtime settings and version, and host"),
    _column("structure_sha256", _KEY, "The structure that was timed", index=True),
    _column("settings", _JSON, "Runtime, threads, versions, limits of the measurement"),
    _refers("host_fingerprint", "hosts.fingerprint", "The machine"),
    _column("latency_ms_p50", Double, "Median inference time in ms an image"),
    _column("latency_ms_p90", Double, "90 % quantile of the inference time in ms"),
    _column("latency_ms_p99", Double, "99 % quantile of the inference time in ms"),
    _column("reference_ms_p50", Double, "Median inference time in ms of the LiteRT float32 reference in the same run"),
    _column(
        "ratio",
        Double,
        "Variant time / reference time: geometric mean over rounds of fresh processes of each round's median",
    ),
    _column("ratio_low", Double, "Lower end of the 95 % interval of the ratio"),
    _column("ratio_high", Double, "Upper end of the 95 % interval of the ratio"),
    _column("postprocessing_ms_p50", Double, "Median time in ms from raw outputs to detections"),
    _column("load_ms", Double, LOAD_MEANING),
    _column("pairs", Integer, "Number of (reference, variant) pairs timed, over all rounds"),
    _column("converged", Boolean, "Whether the interval reached the wanted width before the time cap"),
    _column("samples_ms", _JSON, "Rounds in order: of each the [reference, variant] times in ms of its pairs"),
    _column("conditions", _JSON, "State of the machine during the run: load average, CPU steal share, ..."),
    _column(
        "import_ms", Double, "Time in ms to import the runtime in a fresh process; NULL if not measured", null=True
    ),
    _column(
        "first_inference_ms",
        Double,
        "Time in ms of the first inference after loading, in that process; NULL if not measured",
        null=True,
    ),
    _column(
        "peak_memory_bytes",
        BigInteger,
        "Most resident memory of that process in bytes, less what it held before the import; NULL if not measured",
        null=True,
    ),
    _column(
        "executed_mac_share",
        _JSON,
        "Share of multiply-accumulates by the arithmetic that the runtime really uses; NULL if it does not tell",
        null=True,
    ),
    _column("executed_int8_mac_share", Double, EXECUTED_INT8_MEANING, null=True),
    _column(
        "noisy",
        _JSON,
        "What was wrong with the conditions, a list of lines; empty for a run that can be trusted",
        server_default=text("'[]'"),
    ),
    _column("attempts", Integer, ATTEMPTS_MEANING, server_default="1"),
    _column("rounds", Integer, "Number of rounds, each of fresh processes", server_default="1"),
    _column("images_per_second", Double, THROUGHPUT_MEANING, null=True),
    _column("copies", Integer, COPIES_MEANING, null=True),
    comment="Latency of one artifact structure on one host",
)

profiles = Table(
    "profiles",
    tables,
    Column("key", _KEY, ForeignKey("latencies.key"), primary_key=True, comment="The latency whose time is taken apart"),
    _column("total_ms", Double, "Median time in ms of whole inferences of the same session, not profiled"),
    _column("repeats", Integer, "Inferences that each operator's median is of"),
    _column("method", Text, "How times were taken"),
    _column("fallback_share", Double, FALLBACK_MEANING),
    _column("conversion_share", Double, CONVERSION_MEANING),
    _column("created_at", UtcDateTime, "When it was taken last (UTC)"),
    comment="Where the time of one artifact structure goes on one host",
)

operator_times = Table(
    "operator_times",
    tables,
    Column("profile_key", _KEY, ForeignKey("profiles.key", ondelete="CASCADE"), nullable=False, comment="The profile"),
    _column("position", Integer, "Place in the order of execution, from 0"),
    *(_column(name, kind, comment, null=null) for name, kind, comment, null in OPERATOR),
    PrimaryKeyConstraint("profile_key", "position"),
    comment="Time of each operator of a profile",
)

comparisons = Table(
    "comparisons",
    tables,
    _key("sha256 of both artifacts and their settings, the method and the host"),
    *_side("first"),
    *_side("second"),
    _refers("host_fingerprint", "hosts.fingerprint", "The machine"),
    _column("first_ms_p50", Double, "Median inference time in ms of the first"),
    _column("second_ms_p50", Double, "Median inference time in ms of the second"),
    _column("ratio", Double, "Second time / first time: geometric mean over rounds of each round's median"),
    _column("ratio_low", Double, "Lower end of the 95 % interval of the ratio"),
    _column("ratio_high", Double, "Upper end of the 95 % interval of the ratio"),
    _column("pairs", Integer, "Number of (first, second) pairs timed, over all rounds"),
    _column("rounds", Integer, "Number of rounds, each of fresh processes"),
    _column("converged", Boolean, "Whether the interval reached the wanted width before the time cap"),
    _column("samples_ms", _JSON, "Rounds in order: of each the [first, second] times in ms of its pairs"),
    _column("conditions", _JSON, "State of the machine during the run: load average, CPU steal share, ..."),
    _column("noisy", _JSON, "What was wrong with the conditions, a list of lines; empty for a run that can be trusted"),
    _column("created_at", UtcDateTime, "When it was measured last (UTC)"),
    comment="Pairs of artifacts that were timed in turn, directly",
)

failure_records = Table(
    "failure_records",
    tables,
    _key("Key of the training, artifact request, accuracy or latency that has no result"),
    _column("stage", Text, STAGE_MEANING),
    _column("reason", Text, "Identifier of the kind of failure"),
    _column("message", Text, "One line for a person"),
    _column("detail", Text, "Traceback or log"),
    _column("created_at", UtcDateTime, "When it was recorded last (UTC)"),
    comment="Why a key has no result",
)

variants = Table(
    "variants",
    tables,
    _key("sha256 of detector, scheme and runtime settings"),
    _refers("detector_sha256", "detectors.sha256", "The float detector"),
    _column("label", Text, "Readable name, unique among the variants of one detector", index=True),
    _column("runtime", Text, "Identifier of the runtime"),
    _column("scheme", Text, "Identifier of the scheme"),
    _column("toolchain", Text, "What makes the artifact"),
    *_axes(),
    _column("threads", Integer, "Intra-operator threads"),
    _column("runtime_options", Text, RUNTIME_OPTIONS_MEANING, server_default=text("''")),
    _column("simulated", Boolean, SIMULATED_MEANING, server_default=false()),
    _column("scheme_json", _JSON, "The scheme with all its axes"),
    _column("settings_json", _JSON, "The runtime settings"),
    comment="Candidates: a scheme and the settings it runs with",
)

sweeps = Table(
    "sweeps",
    tables,
    _key("sha256 of name, spec, detector, evaluation set, provenance and variants"),
    _column("name", Text, "Name given in the spec", index=True),
    _column("spec", Text, "Text of the spec file"),
    _refers("detector_sha256", "detectors.sha256", "The float detector"),
    _refers("dataset_fingerprint", "datasets.fingerprint", "The evaluation set"),
    _column("provenance", _JSON, "Seeds, calibration images and versions that the results depend on"),
    _column(
        "budget_metric",
        Text,
        "Column of the statistic that the budget is about, such as ap; NULL without a budget",
        null=True,
    ),
    _column(
        "budget_max_loss",
        Double,
        "Largest loss allowed: points in [0, 1], or a share of the reference's value",
        null=True,
    ),
    _column("budget_relative", Boolean, "Whether the largest loss is a share of the reference's value", null=True),
    _refers("reference_variant_key", "variants.key", "The LiteRT float32 variant that losses refer to"),
    _column("artifacts_url", Text, "Folder or fsspec URL of the artifact storage"),
    _column("started_at", UtcDateTime, "First start (UTC)"),
    _column("resumed_at", UtcDateTime, "Latest start (UTC)"),
    _column(
        "finished_at", UtcDateTime, "When every variant was settled, or the search ended; NULL before (UTC)", null=True
    ),
    _column("kind", Text, KIND_MEANING, server_default=text("'sweep'")),
    _refers(
        "confirm_fingerprint",
        "datasets.fingerprint",
        "Further images that the winner is confirmed on; NULL if there are none",
        null=True,
    ),
    comment="Fixed lists of variants of one detector on one evaluation set, and how they are measured",
)

sweep_variants = Table(
    "sweep_variants",
    tables,
    _refers("sweep_key", "sweeps.key", "The sweep"),
    _refers("variant_key", "variants.key", "The variant", index=True),
    _column("position", Integer, "Place in the sweep's list, from 0"),
    _column("status", Text, STATUS_MEANING),
    _column("request_key", _KEY, "Key of the artifact request, whether it succeeded or failed; NULL before", null=True),
    _refers("artifact_sha256", "artifacts.sha256", "The artifact, if there is one", null=True),
    _refers("accuracy_key", "accuracies.key", "The accuracy, if there is one", null=True),
    _refers("latency_key", "latencies.key", "The latency, if there is one", null=True),
    _refers(
        "own_latency_key",
        "latencies.key",
        "A second latency, of the artifact's own bytes, measured because the variant won; NULL if it was not",
        null=True,
    ),
    _refers(
        "confirm_accuracy_key",
        "accuracies.key",
        "The accuracy on the confirmation images, which no choice was made by; NULL if it was not confirmed",
        null=True,
    ),
    _refers(
        "training_key",
        "trainings.key",
        "Its training, if it was settled with one that has begun, whether or not an artifact came out",
        null=True,
    ),
    _refers("failure_key", "failure_records.key", "Why it failed; NULL unless the status is failed", null=True),
    _column("settled_at", UtcDateTime, "When the status was set last; NULL while it never was (UTC)", null=True),
    PrimaryKeyConstraint("sweep_key", "variant_key"),
    CheckConstraint("status IN ('pending', 'done', 'stopped', 'failed')", name="status"),
    comment="Variants of a sweep and where their results are",
)

verdicts = Table(
    "verdicts",
    tables,
    _column("sweep_key", _KEY, "The sweep, study or search for the best"),
    _column("variant_key", _KEY, "The variant"),
    _column("kind", Text, f"What was decided: {VERDICT_MEANING}"),
    _column("images", Integer, "Images that it was scored on by then; 0 if its accuracy was not asked for"),
    _column(
        "all_images", Integer, "Images of the whole evaluation; with fewer, loss is of a part of them and no score"
    ),
    _column(
        "loss", Double, "Loss of the budget's metric on those images, as the budget counts it; NULL if none", null=True
    ),
    _column("loss_low", Double, "Lower end of the interval of the loss; NULL if none", null=True),
    _column("loss_high", Double, "Upper end of the interval of the loss; NULL if none", null=True),
    _column("level", Double, "Nominal coverage of the interval, in (0, 1); NULL if none", null=True),
    _column("resamples", Integer, "Number of bootstrap resamples drawn; NULL if none", null=True),
    _column("seed", BigInteger, "Seed of the draws; NULL if none", null=True),
    _column("because", Text, "Why, in one line"),
    _column("trial", Integer, "Number of the trial that asked for it, from 0; NULL if none did", null=True),
    _column("inferred", BigInteger, INFERRED_MEANING),
    _column("decided_at", UtcDateTime, "When it was decided last (UTC)"),
    PrimaryKeyConstraint("sweep_key", "variant_key"),
    ForeignKeyConstraint(
        ["sweep_key", "variant_key"], ["sweep_variants.sweep_key", "sweep_variants.variant_key"], ondelete="CASCADE"
    ),
    comment="What searches decided about variants, and on how much evidence",
)

sensitivities = Table(
    "sensitivities",
    tables,
    _key("sha256 of detector, scheme, versions, calibration images and evaluation set"),
    _refers("detector_sha256", "detectors.sha256", "The float detector", index=True),
    _column("scheme", Text, "Identifier of the scheme that one layer at a time was quantized with"),
    _column("toolchain", Text, "What made the artifacts"),
    *_axes(),
    _column("scheme_json", _JSON, "The scheme with all its axes"),
    _column("versions", _JSON, "Versions of the packages that decide about the bytes"),
    _column("calibration", _JSON, "Calibration images that ranges and noise were observed on"),
    _refers(
        "dataset_fingerprint", "datasets.fingerprint", "The evaluation set; NULL if AP was not measured", null=True
    ),
    _column("images", Integer, "Number of images evaluated; NULL if AP was not measured", null=True),
    _column("reference_ap", Double, "AP of the float detector on these images; NULL if AP was not measured", null=True),
    _column("created_at", UtcDateTime, "When it was measured last (UTC)"),
    comment="Measurements of what quantizing one layer at a time does to a detector",
)

layer_sensitivities = Table(
    "layer_sensitivities",
    tables,
    Column(
        "sensitivity_key",
        _KEY,
        ForeignKey("sensitivities.key", ondelete="CASCADE"),
        nullable=False,
        comment="The measurement",
    ),
    _column("layer", Text, "Canonical name of the layer"),
    _column("position", Integer, "Place of the layer in the network, from 0"),
    _column("rank", Integer, "1 for the most sensitive layer, which has the lowest sqnr_db"),
    _column("sqnr_db", Double, "The lower of the two below; NULL where nothing changes: infinite", null=True),
    _column(
        "sqnr_boxes_db",
        Double,
        "Signal-to-quantization-noise ratio of the encoded boxes in dB; NULL: infinite",
        null=True,
    ),
    _column(
        "sqnr_scores_db", Double, "Signal-to-quantization-noise ratio of the scores in dB; NULL: infinite", null=True
    ),
    _column("mac_share", Double, "Share of the detector's multiply-accumulates that the layer makes, in [0, 1]"),
    _column(
        "ap",
        Double,
        "AP with this layer alone quantized; -1 if there is nothing to score; NULL if not measured",
        null=True,
    ),
    _column("ap_loss", Double, "reference_ap - ap; NULL if not measured", null=True),
    PrimaryKeyConstraint("sensitivity_key", "layer"),
    comment="What quantizing one layer alone does, layer by layer",
)
