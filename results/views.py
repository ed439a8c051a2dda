"""The views that readers read, column by column. Their SQL lives in the migrations."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, String, Table, Text

from results.schema import (
    ATTEMPTS_MEANING,
    AXES,
    CONVERSION_MEANING,
    COPIES_MEANING,
    EXECUTED_INT8_MEANING,
    FALLBACK_MEANING,
    INFERRED_MEANING,
    KIND_MEANING,
    LOAD_MEANING,
    OPERATOR,
    RUNTIME_OPTIONS_MEANING,
    SHOWN_TRAINING_MEANING,
    SIMULATED_MEANING,
    STAGE_MEANING,
    STATISTICS,
    STATISTICS_MEANING,
    STATUS_MEANING,
    THROUGHPUT_MEANING,
    VERDICT_MEANING,
    UtcDateTime,
)

_KEY = String(64)

views = MetaData()
"""What readers read. No constraints: the columns with their types, in order."""


def _shown(name: str, kind: Any, comment: str) -> Column[Any]:
    return Column(name, kind, comment=comment)


def _axes() -> Iterator[Column[Any]]:
    for name, (kind, comment) in AXES.items():
        yield _shown(name, kind, comment)


def _identity() -> tuple[Column[Any], ...]:
    return (
        _shown("sweep", Text, "Name of the sweep"),
        _shown("sweep_key", _KEY, "Key of the sweep"),
        _shown("variant", Text, "Label of the variant"),
        _shown("variant_key", _KEY, "Key of the variant"),
    )


def _ranked() -> tuple[Column[Any], ...]:
    return (
        *_identity(),
        _shown("position", Integer, "Place in the sweep's list, from 0"),
        _shown("is_reference", Boolean, "Whether losses of this sweep refer to this variant"),
        _shown("runtime", Text, "Identifier of the runtime"),
        _shown("scheme", Text, "Identifier of the scheme"),
        _shown("toolchain", Text, "What makes the artifact"),
        *_axes(),
        _shown("threads", Integer, "Intra-operator threads"),
        _shown("runtime_options", Text, RUNTIME_OPTIONS_MEANING),
        _shown("simulated", Boolean, SIMULATED_MEANING),
        _shown("status", Text, STATUS_MEANING),
        *(
            _shown(name, Double, f"{meaning}, in [0, 1]")
            for name, meaning in zip(STATISTICS[:6], STATISTICS_MEANING[:6], strict=True)
        ),
        *(
            _shown(f"{name}_loss", Double, f"{name} of the sweep's reference on the same images, minus {name}")
            for name in STATISTICS[:6]
        ),
        _shown("ap_loss_low", Double, "Lower end of the interval of ap_loss; NULL if it was not computed"),
        _shown("ap_loss_high", Double, "Upper end of the interval of ap_loss; NULL if it was not computed"),
        _shown("images", Integer, "Number of images evaluated"),
        _shown("detections", BigInteger, "Number of detections scored"),
        _shown("latency_ms_p50", Double, "Median inference time in ms an image"),
        _shown("latency_ms_p90", Double, "90 % quantile of the inference time in ms"),
        _shown("latency_ms_p99", Double, "99 % quantile of the inference time in ms"),
        _shown("reference_ms_p50", Double, "Median inference time in ms of the reference in the same run"),
        _shown("latency_ratio", Double, "Variant time / reference time; compare within one host only"),
        _shown("latency_ratio_low", Double, "Lower end of the 95 % interval of the ratio"),
        _shown("latency_ratio_high", Double, "Upper end of the 95 % interval of the ratio"),
        _shown("latency_converged", Boolean, "Whether the interval reached the wanted width before the time cap"),
        _shown("latency_noisy", Boolean, "Whether conditions were bad while it was measured: it makes no winner"),
        _shown("latency_attempts", Integer, ATTEMPTS_MEANING),
        _shown("postprocessing_ms_p50", Double, "Median time in ms from raw outputs to detections"),
        _shown("import_ms", Double, "Time in ms to import the runtime in a fresh process"),
        _shown("load_ms", Double, LOAD_MEANING),
        _shown("first_inference_ms", Double, "Time in ms of the first inference after loading, in that process"),
        _shown(
            "peak_memory_bytes",
            BigInteger,
            "Most resident memory of that process in bytes, less what it held before the import",
        ),
        _shown("own_latency_ratio", Double, "Ratio of a second measurement, of the artifact's own bytes; NULL if none"),
        _shown("own_latency_ratio_low", Double, "Lower end of its 95 % interval"),
        _shown("own_latency_ratio_high", Double, "Upper end of its 95 % interval"),
        _shown("images_per_second", Double, THROUGHPUT_MEANING),
        _shown("copies", Integer, COPIES_MEANING),
        _shown("executed_int8_mac_share", Double, EXECUTED_INT8_MEANING),
        _shown("fallback_share", Double, f"{FALLBACK_MEANING}; NULL without a profile"),
        _shown("conversion_share", Double, f"{CONVERSION_MEANING}; NULL without a profile"),
        _shown("size_bytes", BigInteger, "Size of the artifact in bytes"),
        _shown("compressed_bytes", BigInteger, "Size of the artifact in bytes after zlib at level 6"),
        _shown("int8_mac_share", Double, "Share of multiply-accumulates in int8 arithmetic, in [0, 1]"),
        _shown(
            "quantized_mac_share",
            Double,
            "Share of multiply-accumulates not in float arithmetic (weight-only schemes are), in [0, 1]",
        ),
        _shown("artifact_sha256", _KEY, "sha256 of the model file"),
        _shown("structure_sha256", _KEY, "Hash of the graph without values, which latency belongs to"),
        _shown("detections_sha256", _KEY, "The detections' file in artifact storage"),
        _shown("scorer", Text, "What computed the statistics, with its version"),
        _shown("confirmed_by", Text, "Reference scorer that gave the same statistics; or NULL"),
        _shown("latency_key", _KEY, "Key of the latency, which variants of one structure and settings share"),
        _shown("host", _KEY, "Fingerprint of the machine that the latency belongs to"),
        _shown("budget_loss", Double, "Loss of the budget's metric, as the budget counts it (absolute or relative)"),
        _shown("feasible", Boolean, "Whether budget_loss is within the budget; NULL without a budget or an accuracy"),
        _shown("verdict", Text, f"What a search decided: {VERDICT_MEANING}; NULL if no search did"),
        _shown("verdict_images", Integer, "Images that this was decided on; 0 if its accuracy was not asked for"),
        _shown(
            "verdict_loss",
            Double,
            "Loss of the budget's metric on those images, as the budget counts it; no score unless they are all",
        ),
        _shown("verdict_loss_low", Double, "Lower end of the interval of verdict_loss"),
        _shown("verdict_loss_high", Double, "Upper end of the interval of verdict_loss"),
        _shown("verdict_because", Text, "Why it was decided, in one line"),
        _shown("trial", Integer, "Number of the trial that asked for it, from 0; NULL if none did"),
        _shown("confirm_images", Integer, "Number of confirmation images, which no choice was made by; NULL if none"),
        _shown("confirm_ap", Double, "AP on the confirmation images, in [0, 1]"),
        _shown("confirm_ap_loss", Double, "AP of the sweep's reference on the confirmation images, minus confirm_ap"),
        _shown("confirm_ap_loss_low", Double, "Lower end of the interval of confirm_ap_loss; NULL if not computed"),
        _shown("confirm_ap_loss_high", Double, "Upper end of the interval of confirm_ap_loss; NULL if not computed"),
        _shown("training_key", _KEY, "Key of its training, which variants may share; NULL if none has begun"),
        _shown("training_status", Text, SHOWN_TRAINING_MEANING),
        _shown("training_steps", Integer, "Updates done"),
        _shown("training_best_step", Integer, "Updates done at the lowest held-out loss: the weights that are kept"),
        _shown("training_core_seconds", Double, "CPU time of the training in seconds, all threads together"),
        _shown("failure_stage", Text, "Where it failed"),
        _shown("failure_reason", Text, "Identifier of the kind of failure"),
        _shown("failure_message", Text, "What happened, one line"),
    )


leaderboard = Table("leaderboard", views, *_ranked(), comment="One row for each variant of each sweep")

pareto_front = Table(
    "pareto_front",
    views,
    *_ranked(),
    comment="Rows of the leaderboard that no other done variant of the same sweep, measured on the same host, beats in "
    "AP and latency ratio at once. Noisy latencies neither stand here nor beat others; simulated variants have the "
    "latency of their scheme without the transform",
)

study_trials = Table(
    "study_trials",
    views,
    _shown("study", Text, "Name of the study"),
    _shown("study_key", _KEY, "Its key, the sweep_key of the leaderboard"),
    _shown("kind", Text, KIND_MEANING),
    _shown("trial", Integer, "Number of the trial that asked for the variant, from 0; NULL if none did"),
    _shown("variant", Text, "Label of the variant"),
    _shown("variant_key", _KEY, "Key of the variant"),
    _shown("verdict", Text, f"What was decided: {VERDICT_MEANING}"),
    _shown("images", Integer, "Images that this was decided on; 0 if its accuracy was not asked for"),
    _shown("all_images", Integer, "Images of the whole evaluation; with fewer, loss is of a part of them and no score"),
    _shown("loss", Double, "Loss of the budget's metric on those images, as the budget counts it; NULL if none"),
    _shown("loss_low", Double, "Lower end of the interval of the loss"),
    _shown("loss_high", Double, "Upper end of the interval of the loss"),
    _shown("because", Text, "Why, in one line"),
    _shown("latency_ratio", Double, "Variant time / reference time; NULL if it was not timed"),
    _shown("inferred", BigInteger, INFERRED_MEANING),
    _shown("decided_at", UtcDateTime, "When it was decided last (UTC)"),
    comment="One row for each verdict of each study and each search for the best",
)

trained_variants = Table(
    "trained_variants",
    views,
    *_identity(),
    _shown("runtime", Text, "Identifier of the runtime"),
    _shown("scheme", Text, "Identifier of the scheme"),
    _shown("toolchain", Text, "What makes the artifact"),
    *_axes(),
    _shown("threads", Integer, "Intra-operator threads"),
    _shown("runtime_options", Text, RUNTIME_OPTIONS_MEANING),
    _shown("training_key", _KEY, "Key of the training; variants that share it share its cost"),
    _shown("status", Text, SHOWN_TRAINING_MEANING),
    _shown("stopped_because", Text, "Why the training was stopped, in one line; NULL unless it was"),
    _shown("device", Text, "Where the training computes: cpu, or the name of the GPU"),
    _shown("images", Integer, "Training images, those held out included"),
    _shown("held_out_images", Integer, "Of these, kept apart to see when training stops helping"),
    _shown("steps", Integer, "Updates planned"),
    _shown("step", Integer, "Updates done"),
    _shown("best_step", Integer, "Updates done at the lowest held-out loss: the weights that are kept"),
    _shown("first_held_out_loss", Double, "Held-out loss before the first update"),
    _shown("best_held_out_loss", Double, "Held-out loss of the weights that are kept"),
    _shown("seconds", Double, "Wall time of the training in seconds, work of lost workers not included"),
    _shown("core_seconds", Double, "CPU time of the training in seconds, all threads together"),
    _shown("core_hours", Double, "The same in hours"),
    _shown("ap", Double, "AP of the variant on the evaluation images, in [0, 1]; NULL if it was not scored"),
    _shown(
        "untrained_ap",
        Double,
        "AP of its untrained twin: the variant of the same sweep that differs in the axes of the training alone and "
        "has epochs 0; NULL if it was not scored",
    ),
    _shown("ap_gained", Double, "ap - untrained_ap: what the training bought; NULL if either is"),
    _shown("ap_gained_per_core_hour", Double, "ap_gained / core_hours"),
    comment="One row for each variant of each sweep whose training has begun: what it cost, and what it bought",
)

class_losses = Table(
    "class_losses",
    views,
    *_identity(),
    _shown("category_id", BigInteger, "Category id as in the annotations"),
    _shown("category", Text, "Category name"),
    _shown("ap", Double, "AP of the category, in [0, 1]; NULL if it has no objects"),
    _shown("reference_ap", Double, "AP of the category with the sweep's reference"),
    _shown("ap_loss", Double, "reference_ap - ap"),
    comment="One row for each category of each variant of each sweep that has an accuracy",
)

operators = Table(
    "operators",
    views,
    *_identity(),
    _shown("position", Integer, "Place in the order of execution, from 0"),
    *(_shown(name, kind, comment) for name, kind, comment, _ in OPERATOR[:-1]),
    _shown("time_share", Double, "Share of the operators' time, in [0, 1]"),
    *(_shown(name, kind, comment) for name, kind, comment, _ in OPERATOR[-1:]),
    comment="One row for each operator of each variant of each sweep that has a profile",
)

layer_losses = Table(
    "layer_losses",
    views,
    _shown("detector", Text, "Name of the detector"),
    _shown("detector_sha256", _KEY, "The detector"),
    _shown("sensitivity_key", _KEY, "The measurement; one scheme may have several, of other versions or images"),
    _shown("scheme", Text, "Identifier of the scheme that one layer at a time was quantized with"),
    _shown("toolchain", Text, "What made the artifacts"),
    *_axes(),
    _shown("layer", Text, "Canonical name of the layer"),
    _shown("position", Integer, "Place of the layer in the network, from 0"),
    _shown("rank", Integer, "1 for the most sensitive layer, which has the lowest sqnr_db"),
    _shown("sqnr_db", Double, "The lower of the two below; NULL where nothing changes: infinite"),
    _shown("sqnr_boxes_db", Double, "Signal-to-quantization-noise ratio of the encoded boxes in dB; NULL: infinite"),
    _shown("sqnr_scores_db", Double, "Signal-to-quantization-noise ratio of the scores in dB; NULL: infinite"),
    _shown("mac_share", Double, "Share of the detector's multiply-accumulates that the layer makes, in [0, 1]"),
    _shown("ap", Double, "AP with this layer alone quantized; NULL if not measured or nothing to score"),
    _shown("reference_ap", Double, "AP of the float detector on the same images"),
    _shown("ap_loss", Double, "reference_ap - ap; NULL if either is"),
    _shown("dataset", Text, "Name of the evaluation set; NULL if AP was not measured"),
    _shown("images", Integer, "Number of images evaluated; NULL if AP was not measured"),
    _shown("created_at", UtcDateTime, "When it was measured last (UTC)"),
    comment="One row for each layer of each sensitivity measurement",
)

failures = Table(
    "failures",
    views,
    *_identity(),
    _shown("stage", Text, STAGE_MEANING),
    _shown("reason", Text, "Identifier of the kind of failure"),
    _shown("message", Text, "What happened, one line"),
    _shown("detail", Text, "Traceback or log"),
    _shown("created_at", UtcDateTime, "When it was recorded last (UTC)"),
    comment="One row for each variant of each sweep that failed",
)
