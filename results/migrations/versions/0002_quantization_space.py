"""The whole quantization space: a column for each axis, intervals of losses, and what each layer costs."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LEADERBOARD = """
CREATE VIEW leaderboard AS
WITH scored AS (
    SELECT key, dataset_fingerprint, artifact_sha256, images, detections, detections_sha256, scorer, confirmed_by,
        NULLIF(ap, -1) AS ap, NULLIF(ap50, -1) AS ap50, NULLIF(ap75, -1) AS ap75,
        NULLIF(ap_small, -1) AS ap_small, NULLIF(ap_medium, -1) AS ap_medium, NULLIF(ap_large, -1) AS ap_large,
        NULLIF(ar1, -1) AS ar1, NULLIF(ar10, -1) AS ar10, NULLIF(ar100, -1) AS ar100,
        NULLIF(ar_small, -1) AS ar_small, NULLIF(ar_medium, -1) AS ar_medium, NULLIF(ar_large, -1) AS ar_large
    FROM accuracies
),
intervals AS (
    SELECT accuracy_key, reference_accuracy_key, low, high,
        ROW_NUMBER() OVER (PARTITION BY accuracy_key, reference_accuracy_key ORDER BY created_at DESC, key) AS latest
    FROM loss_intervals
),
ranked AS (
    SELECT
        s.name AS sweep, s.key AS sweep_key, v.label AS variant, v.key AS variant_key, sv.position AS position,
        (v.key = s.reference_variant_key) AS is_reference,
        v.runtime AS runtime, v.scheme AS scheme, v.toolchain AS toolchain, v.granularity AS granularity,
        v.symmetry AS symmetry, v.range_estimator AS range_estimator, v.weight_algorithm AS weight_algorithm,
        v.calibration_images AS calibration_images, v.calibration_seed AS calibration_seed,
        v.input_type AS input_type, v.output_type AS output_type, v.keep_float AS keep_float, v.transform AS transform,
        v.threads AS threads, v.simulated AS simulated,
        sv.status AS status,
        a.ap AS ap, a.ap50 AS ap50, a.ap75 AS ap75,
        a.ap_small AS ap_small, a.ap_medium AS ap_medium, a.ap_large AS ap_large,
        r.ap - a.ap AS ap_loss, r.ap50 - a.ap50 AS ap50_loss, r.ap75 - a.ap75 AS ap75_loss,
        r.ap_small - a.ap_small AS ap_small_loss, r.ap_medium - a.ap_medium AS ap_medium_loss,
        r.ap_large - a.ap_large AS ap_large_loss, i.low AS ap_loss_low, i.high AS ap_loss_high,
        a.images AS images, a.detections AS detections,
        l.latency_ms_p50 AS latency_ms_p50, l.latency_ms_p90 AS latency_ms_p90, l.latency_ms_p99 AS latency_ms_p99,
        l.reference_ms_p50 AS reference_ms_p50,
        l.ratio AS latency_ratio, l.ratio_low AS latency_ratio_low, l.ratio_high AS latency_ratio_high,
        l.converged AS latency_converged, l.postprocessing_ms_p50 AS postprocessing_ms_p50, l.load_ms AS load_ms,
        f.size_bytes AS size_bytes, f.compressed_bytes AS compressed_bytes, f.int8_mac_share AS int8_mac_share,
        f.quantized_mac_share AS quantized_mac_share,
        f.sha256 AS artifact_sha256, f.structure_sha256 AS structure_sha256,
        a.detections_sha256 AS detections_sha256, a.scorer AS scorer, a.confirmed_by AS confirmed_by,
        l.host_fingerprint AS host,
        s.budget_max_loss AS budget_max_loss, s.budget_relative AS budget_relative,
        CASE s.budget_metric
            WHEN 'ap' THEN a.ap WHEN 'ap50' THEN a.ap50 WHEN 'ap75' THEN a.ap75
            WHEN 'ap_small' THEN a.ap_small WHEN 'ap_medium' THEN a.ap_medium WHEN 'ap_large' THEN a.ap_large
            WHEN 'ar1' THEN a.ar1 WHEN 'ar10' THEN a.ar10 WHEN 'ar100' THEN a.ar100
            WHEN 'ar_small' THEN a.ar_small WHEN 'ar_medium' THEN a.ar_medium WHEN 'ar_large' THEN a.ar_large
        END AS metric,
        CASE s.budget_metric
            WHEN 'ap' THEN r.ap WHEN 'ap50' THEN r.ap50 WHEN 'ap75' THEN r.ap75
            WHEN 'ap_small' THEN r.ap_small WHEN 'ap_medium' THEN r.ap_medium WHEN 'ap_large' THEN r.ap_large
            WHEN 'ar1' THEN r.ar1 WHEN 'ar10' THEN r.ar10 WHEN 'ar100' THEN r.ar100
            WHEN 'ar_small' THEN r.ar_small WHEN 'ar_medium' THEN r.ar_medium WHEN 'ar_large' THEN r.ar_large
        END AS reference_metric,
        x.stage AS failure_stage, x.reason AS failure_reason, x.message AS failure_message
    FROM sweep_variants sv
    JOIN sweeps s ON s.key = sv.sweep_key
    JOIN variants v ON v.key = sv.variant_key
    LEFT JOIN artifacts f ON f.sha256 = sv.artifact_sha256
    LEFT JOIN scored a ON a.key = sv.accuracy_key
    LEFT JOIN latencies l ON l.key = sv.latency_key
    LEFT JOIN failure_records x ON x.key = sv.failure_key
    LEFT JOIN sweep_variants rv ON rv.sweep_key = s.key AND rv.variant_key = s.reference_variant_key
    LEFT JOIN scored r ON r.key = rv.accuracy_key AND r.dataset_fingerprint = a.dataset_fingerprint
    LEFT JOIN intervals i ON i.accuracy_key = a.key AND i.reference_accuracy_key = r.key AND i.latest = 1
),
budgeted AS (
    SELECT ranked.*,
        CASE WHEN budget_max_loss IS NULL THEN NULL
             WHEN budget_relative THEN (reference_metric - metric) / NULLIF(reference_metric, 0)
             ELSE reference_metric - metric
        END AS budget_loss
    FROM ranked
)
SELECT sweep, sweep_key, variant, variant_key, position, is_reference, runtime, scheme, toolchain, granularity,
    symmetry, range_estimator, weight_algorithm, calibration_images, calibration_seed, input_type, output_type,
    keep_float, transform, threads, simulated, status, ap, ap50, ap75, ap_small, ap_medium, ap_large,
    ap_loss, ap50_loss, ap75_loss, ap_small_loss, ap_medium_loss, ap_large_loss,
    ap_loss_low, ap_loss_high, images, detections,
    latency_ms_p50, latency_ms_p90, latency_ms_p99, reference_ms_p50,
    latency_ratio, latency_ratio_low, latency_ratio_high, latency_converged, postprocessing_ms_p50, load_ms,
    size_bytes, compressed_bytes, int8_mac_share, quantized_mac_share, artifact_sha256, structure_sha256,
    detections_sha256, scorer, confirmed_by, host, budget_loss,
    (budget_loss <= budget_max_loss + 1e-12) AS feasible,
    failure_stage, failure_reason, failure_message
FROM budgeted
"""

PARETO_FRONT = """
CREATE VIEW pareto_front AS
SELECT one.*
FROM leaderboard one
WHERE one.status = 'done' AND one.ap IS NOT NULL AND one.latency_ratio IS NOT NULL
    AND NOT EXISTS (
        SELECT 1 FROM leaderboard other
        WHERE other.sweep_key = one.sweep_key AND other.host = one.host AND other.status = 'done'
            AND other.ap >= one.ap AND other.latency_ratio <= one.latency_ratio
            AND (other.ap > one.ap OR other.latency_ratio < one.latency_ratio)
    )
"""

LAYER_LOSSES = """
CREATE VIEW layer_losses AS
SELECT d.name AS detector, d.sha256 AS detector_sha256, s.key AS sensitivity_key,
    s.scheme AS scheme, s.toolchain AS toolchain, s.granularity AS granularity, s.symmetry AS symmetry,
    s.range_estimator AS range_estimator, s.weight_algorithm AS weight_algorithm,
    s.calibration_images AS calibration_images, s.calibration_seed AS calibration_seed,
    s.input_type AS input_type, s.output_type AS output_type, s.keep_float AS keep_float, s.transform AS transform,
    y.layer AS layer, y.position AS position, y.rank AS rank,
    y.sqnr_db AS sqnr_db, y.sqnr_boxes_db AS sqnr_boxes_db, y.sqnr_scores_db AS sqnr_scores_db,
    y.mac_share AS mac_share, NULLIF(y.ap, -1) AS ap, NULLIF(s.reference_ap, -1) AS reference_ap,
    CASE WHEN y.ap <> -1 AND s.reference_ap <> -1 THEN y.ap_loss END AS ap_loss,
    e.name AS dataset, s.images AS images, s.created_at AS created_at
FROM layer_sensitivities y
JOIN sensitivities s ON s.key = y.sensitivity_key
JOIN detectors d ON d.sha256 = s.detector_sha256
LEFT JOIN datasets e ON e.fingerprint = s.dataset_fingerprint
"""

# What schema 0001 knew no choice of, by scheme; `transform` is left out, which is 'none' for all.
_ONLY_WAY_OF_INTEGERS = {"weight_algorithm": "min_max", "keep_float": "none"}
_ONLY_WAY: dict[str, dict[str, str]] = {
    "dynamic_int8": _ONLY_WAY_OF_INTEGERS,
    "static_int8": {
        **_ONLY_WAY_OF_INTEGERS,
        "symmetry": "asymmetric",
        "range_estimator": "min_max",
        "input_type": "float32",
        "output_type": "float32",
    },
}
_ADDED_AXES = (
    "symmetry", "range_estimator", "weight_algorithm", "input_type", "output_type", "keep_float", "transform",
)  # fmt: skip


def upgrade() -> None:
    """Adds columns and tables, fills the columns of what is there, and makes the views that show them."""
    op.execute("DROP VIEW pareto_front")
    op.execute("DROP VIEW leaderboard")
    _add_columns()
    _fill_variants()
    _fill_artifacts()
    _create_loss_intervals()
    _create_sensitivities()
    for view in (LEADERBOARD, PARETO_FRONT, LAYER_LOSSES):
        op.execute(view)


def _fill_variants() -> None:
    variants = sa.table(
        "variants",
        *(sa.column(name, sa.Text) for name in ("key", "scheme", *_ADDED_AXES)),
        sa.column("scheme_json", sa.JSON),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(variants.c.key, variants.c.scheme, variants.c.scheme_json)).all():
        known: dict[str, Any] = {"transform": "none", **_ONLY_WAY.get(row.scheme, {}), **row.scheme_json}
        values = {name: known[name] for name in _ADDED_AXES if name in known}
        connection.execute(sa.update(variants).where(variants.c.key == row.key).values(values))


def _fill_artifacts() -> None:
    artifacts = sa.table(
        "artifacts",
        sa.column("sha256", sa.Text),
        sa.column("quantized_mac_share", sa.Double),
        sa.column("audit", sa.JSON),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(artifacts.c.sha256, artifacts.c.audit)).all():
        shares: dict[str, float] = row.audit["mac_share"]
        quantized = sum(share for kind, share in shares.items() if not kind.startswith("float"))
        change = sa.update(artifacts).where(artifacts.c.sha256 == row.sha256)
        connection.execute(change.values(quantized_mac_share=quantized))


def _add_columns() -> None:
    op.add_column(
        "artifacts",
        sa.Column(
            "quantized_mac_share",
            sa.Double(),
            server_default="0",
            nullable=False,
            comment="Share of multiply-accumulates not in float arithmetic (weight-only schemes are), in [0, 1]",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "symmetry",
            sa.Text(),
            nullable=True,
            comment="Zero point of activations: asymmetric (free) or symmetric (0); NULL where the scheme has none",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "range_estimator",
            sa.Text(),
            nullable=True,
            comment="How ranges of activations follow from their statistics; NULL where the scheme has none",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "weight_algorithm",
            sa.Text(),
            nullable=True,
            comment="How ranges of weights are chosen, or how weights are rounded; NULL without integers",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "input_type",
            sa.Text(),
            nullable=True,
            comment="Element type of the input tensor; NULL where the scheme has no choice: float32",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "output_type",
            sa.Text(),
            nullable=True,
            comment="Element type of the output tensors; NULL where the scheme has no choice: float32",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "keep_float",
            sa.Text(),
            nullable=True,
            comment="Layers left in float: none, names and patterns, or most_sensitive_N; NULL without integers",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "transform",
            sa.Text(),
            nullable=True,
            comment="What was done to the float weights first: none, equalized, clustered_16, binary, ...",
        ),
    )
    op.add_column(
        "variants",
        sa.Column(
            "simulated",
            sa.Boolean(),
            server_default=sa.false(),
            nullable=False,
            comment="Whether no kernel makes use of the weights' form: AP and sizes are true, latency is as without",
        ),
    )


def _create_loss_intervals() -> None:
    op.create_table(
        "loss_intervals",
        sa.Column(
            "key", sa.String(length=64), nullable=False, comment="sha256 of accuracy, reference accuracy and method"
        ),
        sa.Column("accuracy_key", sa.String(length=64), nullable=False, comment="The evaluation"),
        sa.Column(
            "reference_accuracy_key",
            sa.String(length=64),
            nullable=False,
            comment="The reference's evaluation on the same images",
        ),
        sa.Column(
            "loss", sa.Double(), nullable=False, comment="AP of the reference minus AP, in [-1, 1]; positive is worse"
        ),
        sa.Column("low", sa.Double(), nullable=False, comment="Lower end of the interval of the loss"),
        sa.Column("high", sa.Double(), nullable=False, comment="Upper end of the interval of the loss"),
        sa.Column("level", sa.Double(), nullable=False, comment="Nominal coverage of the interval, in (0, 1)"),
        sa.Column("resamples", sa.Integer(), nullable=False, comment="Number of bootstrap resamples drawn"),
        sa.Column("seed", sa.BigInteger(), nullable=False, comment="Seed of the draws"),
        sa.Column(
            "images",
            sa.Integer(),
            nullable=False,
            comment="Number of images that each resample draws from, and as many as it draws",
        ),
        sa.Column("method", sa.Text(), nullable=False, comment="How the interval was computed"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was computed last (UTC); the views show the latest",
        ),
        sa.ForeignKeyConstraint(["accuracy_key"], ["accuracies.key"], name=op.f("fk_loss_intervals_accuracy_key")),
        sa.ForeignKeyConstraint(
            ["reference_accuracy_key"], ["accuracies.key"], name=op.f("fk_loss_intervals_reference_accuracy_key")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_loss_intervals")),
        comment="How far the AP loss could move if other images had been drawn",
    )
    op.create_index(op.f("ix_loss_intervals_accuracy_key"), "loss_intervals", ["accuracy_key"], unique=False)


def _create_sensitivities() -> None:
    op.create_table(
        "sensitivities",
        sa.Column(
            "key",
            sa.String(length=64),
            nullable=False,
            comment="sha256 of detector, scheme, versions, calibration images and evaluation set",
        ),
        sa.Column("detector_sha256", sa.String(length=64), nullable=False, comment="The float detector"),
        sa.Column(
            "scheme",
            sa.Text(),
            nullable=False,
            comment="Identifier of the scheme that one layer at a time was quantized with",
        ),
        sa.Column("toolchain", sa.Text(), nullable=False, comment="What made the artifacts"),
        sa.Column(
            "granularity", sa.Text(), nullable=True, comment="per_channel or per_tensor; NULL where the scheme has none"
        ),
        sa.Column(
            "symmetry",
            sa.Text(),
            nullable=True,
            comment="Zero point of activations: asymmetric (free) or symmetric (0); NULL where the scheme has none",
        ),
        sa.Column(
            "range_estimator",
            sa.Text(),
            nullable=True,
            comment="How ranges of activations follow from their statistics; NULL where the scheme has none",
        ),
        sa.Column(
            "weight_algorithm",
            sa.Text(),
            nullable=True,
            comment="How ranges of weights are chosen, or how weights are rounded; NULL without integers",
        ),
        sa.Column(
            "calibration_images",
            sa.Integer(),
            nullable=True,
            comment="Size of the calibration set in images; NULL if none is used",
        ),
        sa.Column(
            "calibration_seed",
            sa.BigInteger(),
            nullable=True,
            comment="Seed of the calibration sample; NULL if none is used",
        ),
        sa.Column(
            "input_type",
            sa.Text(),
            nullable=True,
            comment="Element type of the input tensor; NULL where the scheme has no choice: float32",
        ),
        sa.Column(
            "output_type",
            sa.Text(),
            nullable=True,
            comment="Element type of the output tensors; NULL where the scheme has no choice: float32",
        ),
        sa.Column(
            "keep_float",
            sa.Text(),
            nullable=True,
            comment="Layers left in float: none, names and patterns, or most_sensitive_N; NULL without integers",
        ),
        sa.Column(
            "transform",
            sa.Text(),
            nullable=True,
            comment="What was done to the float weights first: none, equalized, clustered_16, binary, ...",
        ),
        sa.Column("scheme_json", sa.JSON(), nullable=False, comment="The scheme with all its axes"),
        sa.Column(
            "versions", sa.JSON(), nullable=False, comment="Versions of the packages that decide about the bytes"
        ),
        sa.Column(
            "calibration",
            sa.JSON(),
            nullable=False,
            comment="Calibration images that ranges and noise were observed on",
        ),
        sa.Column(
            "dataset_fingerprint",
            sa.String(length=64),
            nullable=True,
            comment="The evaluation set; NULL if AP was not measured",
        ),
        sa.Column(
            "images", sa.Integer(), nullable=True, comment="Number of images evaluated; NULL if AP was not measured"
        ),
        sa.Column(
            "reference_ap",
            sa.Double(),
            nullable=True,
            comment="AP of the float detector on these images; NULL if AP was not measured",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was measured last (UTC)"),
        sa.ForeignKeyConstraint(
            ["dataset_fingerprint"], ["datasets.fingerprint"], name=op.f("fk_sensitivities_dataset_fingerprint")
        ),
        sa.ForeignKeyConstraint(
            ["detector_sha256"], ["detectors.sha256"], name=op.f("fk_sensitivities_detector_sha256")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sensitivities")),
        comment="Measurements of what quantizing one layer at a time does to a detector",
    )
    op.create_index(op.f("ix_sensitivities_detector_sha256"), "sensitivities", ["detector_sha256"], unique=False)
    op.create_table(
        "layer_sensitivities",
        sa.Column("sensitivity_key", sa.String(length=64), nullable=False, comment="The measurement"),
        sa.Column("layer", sa.Text(), nullable=False, comment="Canonical name of the layer"),
        sa.Column("position", sa.Integer(), nullable=False, comment="Place of the layer in the network, from 0"),
        sa.Column(
            "rank", sa.Integer(), nullable=False, comment="1 for the most sensitive layer, which has the lowest sqnr_db"
        ),
        sa.Column(
            "sqnr_db",
            sa.Double(),
            nullable=True,
            comment="The lower of the two below; NULL where nothing changes: infinite",
        ),
        sa.Column(
            "sqnr_boxes_db",
            sa.Double(),
            nullable=True,
            comment="Signal-to-quantization-noise ratio of the encoded boxes in dB; NULL: infinite",
        ),
        sa.Column(
            "sqnr_scores_db",
            sa.Double(),
            nullable=True,
            comment="Signal-to-quantization-noise ratio of the scores in dB; NULL: infinite",
        ),
        sa.Column(
            "mac_share",
            sa.Double(),
            nullable=False,
            comment="Share of the detector's multiply-accumulates that the layer makes, in [0, 1]",
        ),
        sa.Column(
            "ap",
            sa.Double(),
            nullable=True,
            comment="AP with this layer alone quantized; -1 if there is nothing to score; NULL if not measured",
        ),
        sa.Column("ap_loss", sa.Double(), nullable=True, comment="reference_ap - ap; NULL if not measured"),
        sa.ForeignKeyConstraint(
            ["sensitivity_key"],
            ["sensitivities.key"],
            name=op.f("fk_layer_sensitivities_sensitivity_key"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sensitivity_key", "layer", name=op.f("pk_layer_sensitivities")),
        comment="What quantizing one layer alone does, layer by layer",
    )
