"""More runtimes: axes and options that only some have, and what a cold start costs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
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
        v.memory_layout AS memory_layout, v.activation_type AS activation_type, v.bias_correction AS bias_correction,
        v.threads AS threads, v.runtime_options AS runtime_options, v.simulated AS simulated,
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
        l.converged AS latency_converged, l.postprocessing_ms_p50 AS postprocessing_ms_p50,
        l.import_ms AS import_ms, l.load_ms AS load_ms, l.first_inference_ms AS first_inference_ms,
        l.peak_memory_bytes AS peak_memory_bytes, l.executed_int8_mac_share AS executed_int8_mac_share,
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
    keep_float, transform, memory_layout, activation_type, bias_correction, threads, runtime_options, simulated, status,
    ap, ap50, ap75, ap_small, ap_medium, ap_large,
    ap_loss, ap50_loss, ap75_loss, ap_small_loss, ap_medium_loss, ap_large_loss,
    ap_loss_low, ap_loss_high, images, detections,
    latency_ms_p50, latency_ms_p90, latency_ms_p99, reference_ms_p50,
    latency_ratio, latency_ratio_low, latency_ratio_high, latency_converged, postprocessing_ms_p50,
    import_ms, load_ms, first_inference_ms, peak_memory_bytes, executed_int8_mac_share,
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
    s.memory_layout AS memory_layout, s.activation_type AS activation_type, s.bias_correction AS bias_correction,
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

_LOAD_BEFORE = "Time in ms to load the artifact and allocate its tensors"
_LOAD_NOW = "Time in ms from the artifact's bytes to a session in a fresh process, the runtime's import not included"


def upgrade() -> None:
    """Adds columns, empty for what is there: it was made and measured without them; then makes the views anew."""
    for view in ("pareto_front", "leaderboard", "layer_losses"):
        op.execute(f"DROP VIEW {view}")
    for table in ("variants", "sensitivities"):
        _add_axes(table)
    op.add_column(
        "variants",
        sa.Column(
            "runtime_options",
            sa.Text(),
            server_default=sa.text("''"),
            nullable=False,
            comment="Options of the runtime that are not at their default, as name=value joined by commas",
        ),
    )
    _add_cold_start()
    for view in (LEADERBOARD, PARETO_FRONT, LAYER_LOSSES):
        op.execute(view)


def _add_axes(table: str) -> None:
    op.add_column(
        table,
        sa.Column(
            "memory_layout",
            sa.Text(),
            nullable=True,
            comment="Order of torch's dimensions in memory: channels_last or contiguous; NULL without torch",
        ),
    )
    op.add_column(
        table,
        sa.Column(
            "activation_type",
            sa.Text(),
            nullable=True,
            comment="Integers of activations in ONNX Runtime: uint8 or int8; NULL where there is no choice",
        ),
    )
    op.add_column(
        table,
        sa.Column(
            "bias_correction",
            sa.Text(),
            nullable=True,
            comment="How NNCF moves biases: fast, accurate or none; NULL under other toolchains",
        ),
    )


def _add_cold_start() -> None:
    op.add_column(
        "latencies",
        sa.Column(
            "import_ms",
            sa.Double(),
            nullable=True,
            comment="Time in ms to import the runtime in a fresh process; NULL if not measured",
        ),
    )
    op.add_column(
        "latencies",
        sa.Column(
            "first_inference_ms",
            sa.Double(),
            nullable=True,
            comment="Time in ms of the first inference after loading, in that process; NULL if not measured",
        ),
    )
    op.add_column(
        "latencies",
        sa.Column(
            "peak_memory_bytes",
            sa.BigInteger(),
            nullable=True,
            comment="Most resident memory of that process in bytes, less what it held before the import; NULL if "
            "not measured",
        ),
    )
    op.add_column(
        "latencies",
        sa.Column(
            "executed_mac_share",
            sa.JSON(),
            nullable=True,
            comment="Share of multiply-accumulates by the arithmetic that the runtime really uses; NULL if it "
            "does not tell",
        ),
    )
    op.add_column(
        "latencies",
        sa.Column(
            "executed_int8_mac_share",
            sa.Double(),
            nullable=True,
            comment="Share of multiply-accumulates that the runtime really executes in int8 (static or dynamic) with "
            "these settings on this host, in [0, 1]; NULL if it does not tell",
        ),
    )
    # Measured anew in another way; SQLite keeps no comments.
    if op.get_bind().dialect.supports_comments:
        op.alter_column("latencies", "load_ms", comment=_LOAD_NOW, existing_comment=_LOAD_BEFORE)
