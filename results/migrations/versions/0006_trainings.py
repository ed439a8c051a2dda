"""Trainings: what was learned, what that cost, and which variants were made of it."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
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
        v.trainer AS trainer, v.epochs AS epochs, v.learning_rate AS learning_rate,
        v.distillation_weight AS distillation_weight, v.freeze_point AS freeze_point, v.training_seed AS training_seed,
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
        l.converged AS latency_converged, (CAST(l.noisy AS TEXT) <> '[]') AS latency_noisy,
        l.attempts AS latency_attempts, l.postprocessing_ms_p50 AS postprocessing_ms_p50,
        l.import_ms AS import_ms, l.load_ms AS load_ms, l.first_inference_ms AS first_inference_ms,
        l.peak_memory_bytes AS peak_memory_bytes, l.images_per_second AS images_per_second, l.copies AS copies,
        l.executed_int8_mac_share AS executed_int8_mac_share,
        p.fallback_share AS fallback_share, p.conversion_share AS conversion_share,
        f.size_bytes AS size_bytes, f.compressed_bytes AS compressed_bytes, f.int8_mac_share AS int8_mac_share,
        f.quantized_mac_share AS quantized_mac_share,
        f.sha256 AS artifact_sha256, f.structure_sha256 AS structure_sha256,
        a.detections_sha256 AS detections_sha256, a.scorer AS scorer, a.confirmed_by AS confirmed_by,
        l.key AS latency_key, l.host_fingerprint AS host,
        o.ratio AS own_latency_ratio, o.ratio_low AS own_latency_ratio_low, o.ratio_high AS own_latency_ratio_high,
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
        d.kind AS verdict, d.images AS verdict_images, d.loss AS verdict_loss, d.loss_low AS verdict_loss_low,
        d.loss_high AS verdict_loss_high, d.because AS verdict_because, d.trial AS trial,
        c.images AS confirm_images, c.ap AS confirm_ap, rc.ap - c.ap AS confirm_ap_loss,
        ci.low AS confirm_ap_loss_low, ci.high AS confirm_ap_loss_high,
        t.key AS training_key,
        CASE WHEN t.status IN ('running', 'stopped') AND tx.created_at >= t.updated_at THEN 'failed' ELSE t.status
        END AS training_status,
        t.step AS training_steps, t.best_step AS training_best_step, t.core_seconds AS training_core_seconds,
        x.stage AS failure_stage, x.reason AS failure_reason, x.message AS failure_message
    FROM sweep_variants sv
    JOIN sweeps s ON s.key = sv.sweep_key
    JOIN variants v ON v.key = sv.variant_key
    LEFT JOIN artifacts f ON f.sha256 = sv.artifact_sha256
    LEFT JOIN scored a ON a.key = sv.accuracy_key
    LEFT JOIN latencies l ON l.key = sv.latency_key
    LEFT JOIN profiles p ON p.key = l.key
    LEFT JOIN latencies o ON o.key = sv.own_latency_key
    LEFT JOIN artifact_requests q ON q.key = sv.request_key
    LEFT JOIN trainings t ON t.key = COALESCE(q.training_key, sv.training_key)
    LEFT JOIN failure_records tx ON tx.key = t.key
    LEFT JOIN failure_records x ON x.key = sv.failure_key
    LEFT JOIN sweep_variants rv ON rv.sweep_key = s.key AND rv.variant_key = s.reference_variant_key
    LEFT JOIN scored r ON r.key = rv.accuracy_key AND r.dataset_fingerprint = a.dataset_fingerprint
    LEFT JOIN intervals i ON i.accuracy_key = a.key AND i.reference_accuracy_key = r.key AND i.latest = 1
    LEFT JOIN verdicts d ON d.sweep_key = sv.sweep_key AND d.variant_key = sv.variant_key
    LEFT JOIN scored c ON c.key = sv.confirm_accuracy_key
    LEFT JOIN scored rc ON rc.key = rv.confirm_accuracy_key AND rc.dataset_fingerprint = c.dataset_fingerprint
    LEFT JOIN intervals ci ON ci.accuracy_key = c.key AND ci.reference_accuracy_key = rc.key AND ci.latest = 1
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
    keep_float, transform, memory_layout, activation_type, bias_correction,
    trainer, epochs, learning_rate, distillation_weight, freeze_point, training_seed,
    threads, runtime_options, simulated, status,
    ap, ap50, ap75, ap_small, ap_medium, ap_large,
    ap_loss, ap50_loss, ap75_loss, ap_small_loss, ap_medium_loss, ap_large_loss,
    ap_loss_low, ap_loss_high, images, detections,
    latency_ms_p50, latency_ms_p90, latency_ms_p99, reference_ms_p50,
    latency_ratio, latency_ratio_low, latency_ratio_high, latency_converged,
    latency_noisy, latency_attempts, postprocessing_ms_p50, import_ms, load_ms, first_inference_ms, peak_memory_bytes,
    own_latency_ratio, own_latency_ratio_low, own_latency_ratio_high,
    images_per_second, copies, executed_int8_mac_share, fallback_share, conversion_share,
    size_bytes, compressed_bytes, int8_mac_share, quantized_mac_share, artifact_sha256, structure_sha256,
    detections_sha256, scorer, confirmed_by, latency_key, host, budget_loss,
    (budget_loss <= budget_max_loss + 1e-12) AS feasible,
    verdict, verdict_images, verdict_loss, verdict_loss_low, verdict_loss_high, verdict_because, trial,
    confirm_images, confirm_ap, confirm_ap_loss, confirm_ap_loss_low, confirm_ap_loss_high,
    training_key, training_status, training_steps, training_best_step, training_core_seconds,
    failure_stage, failure_reason, failure_message
FROM budgeted
"""

PARETO_FRONT = """
CREATE VIEW pareto_front AS
SELECT one.*
FROM leaderboard one
WHERE one.status = 'done' AND one.ap IS NOT NULL AND one.latency_ratio IS NOT NULL
    AND NOT one.latency_noisy
    AND NOT EXISTS (
        SELECT 1 FROM leaderboard other
        WHERE other.sweep_key = one.sweep_key AND other.host = one.host AND other.status = 'done'
            AND NOT other.latency_noisy
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
    s.trainer AS trainer, s.epochs AS epochs, s.learning_rate AS learning_rate,
    s.distillation_weight AS distillation_weight, s.freeze_point AS freeze_point, s.training_seed AS training_seed,
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

TRAINED_VARIANTS = """
CREATE VIEW trained_variants AS
WITH scored AS (
    SELECT s.name AS sweep, sv.sweep_key AS sweep_key, v.*, NULLIF(a.ap, -1) AS ap,
        COALESCE(q.training_key, sv.training_key) AS training_key
    FROM sweep_variants sv
    JOIN sweeps s ON s.key = sv.sweep_key
    JOIN variants v ON v.key = sv.variant_key
    LEFT JOIN artifact_requests q ON q.key = sv.request_key
    LEFT JOIN accuracies a ON a.key = sv.accuracy_key
),
told AS (
    SELECT v.sweep AS sweep, v.sweep_key AS sweep_key, v.label AS variant, v.key AS variant_key,
        v.runtime AS runtime, v.scheme AS scheme, v.toolchain AS toolchain, v.granularity AS granularity,
        v.symmetry AS symmetry, v.range_estimator AS range_estimator, v.weight_algorithm AS weight_algorithm,
        v.calibration_images AS calibration_images, v.calibration_seed AS calibration_seed,
        v.input_type AS input_type, v.output_type AS output_type, v.keep_float AS keep_float, v.transform AS transform,
        v.memory_layout AS memory_layout, v.activation_type AS activation_type, v.bias_correction AS bias_correction,
        v.trainer AS trainer, v.epochs AS epochs, v.learning_rate AS learning_rate,
        v.distillation_weight AS distillation_weight, v.freeze_point AS freeze_point, v.training_seed AS training_seed,
        v.threads AS threads, v.runtime_options AS runtime_options,
        t.key AS training_key,
        CASE WHEN t.status IN ('running', 'stopped') AND x.created_at >= t.updated_at THEN 'failed' ELSE t.status
        END AS status,
        t.stopped_because AS stopped_because, t.device AS device, t.images AS images,
        t.held_out_images AS held_out_images, t.steps AS steps, t.step AS step, t.best_step AS best_step,
        t.first_held_out_loss AS first_held_out_loss, t.best_held_out_loss AS best_held_out_loss,
        t.seconds AS seconds, t.core_seconds AS core_seconds, t.core_seconds / 3600.0 AS core_hours,
        v.ap AS ap, u.ap AS untrained_ap, v.ap - u.ap AS ap_gained
    FROM scored v
    JOIN trainings t ON t.key = v.training_key
    LEFT JOIN failure_records x ON x.key = t.key
    LEFT JOIN scored u ON u.sweep_key = v.sweep_key AND u.epochs = 0 AND EXISTS (
        SELECT v.runtime, v.threads, v.runtime_options, v.scheme, v.toolchain, v.granularity, v.symmetry,
            v.range_estimator, v.weight_algorithm, v.calibration_images, v.calibration_seed, v.input_type,
            v.output_type, v.keep_float, v.transform, v.memory_layout, v.activation_type, v.bias_correction
        INTERSECT
        SELECT u.runtime, u.threads, u.runtime_options, u.scheme, u.toolchain, u.granularity, u.symmetry,
            u.range_estimator, u.weight_algorithm, u.calibration_images, u.calibration_seed, u.input_type,
            u.output_type, u.keep_float, u.transform, u.memory_layout, u.activation_type, u.bias_correction
    )
)
SELECT told.*, ap_gained / NULLIF(core_hours, 0) AS ap_gained_per_core_hour
FROM told
"""

_COMMENTS = (
    (
        "failure_records",
        "key",
        "Key of the artifact request, accuracy or latency that has no result",
        "Key of the training, artifact request, accuracy or latency that has no result",
    ),
    (
        "failure_records",
        "stage",
        "Where it happened: calibrate, quantize, detect, score, benchmark",
        "Where it happened: calibrate, train, quantize, detect, score, benchmark",
    ),
    (
        "artifact_requests",
        "build_seconds",
        "Wall time of the build in seconds, calibration not included",
        "Wall time of the build in seconds, calibration and training not included",
    ),
    (
        "sweep_variants",
        "status",
        "pending, done, stopped (it was made and timed, and not scored on every image), or failed",
        "pending, done, stopped (it, or its untrained twin, was made and timed, and it was not scored on every "
        "image), or failed",
    ),
    (
        "verdicts",
        "kind",
        "What was decided: feasible, infeasible, dominated (surely slower than a feasible one), no_gain (not faster "
        "than a feasible one, within the error of measurement), noisy, unsupported, failed, or unsettled (the search "
        "ended first)",
        "What was decided: feasible, infeasible, dominated (surely slower than a feasible one), no_gain (not faster "
        "than a feasible one, within the error of measurement), unpromising (its training was ended, since it went "
        "badly), noisy, unsupported, failed, or unsettled (the search ended first)",
    ),
)
"""Of columns, before and now: table, column, and what they say."""

_LINKS = {
    "artifact_requests": "The training that gave the weights; NULL if none did",
    "sweep_variants": "Its training, if it was settled with one that has begun, whether or not an artifact came out",
}
"""Tables that refer to trainings now, and what that says."""


def upgrade() -> None:
    """Makes what was swept before sweeps without trainings, then makes the views anew."""
    for view in ("pareto_front", "leaderboard", "layer_losses"):
        op.execute(f"DROP VIEW {view}")
    for table in ("variants", "sensitivities"):
        for column in _columns_of_axes():
            op.add_column(table, column)
    _create_trainings()
    for table, meaning in _LINKS.items():
        _link(table, meaning)
    # SQLite keeps no comments.
    if op.get_bind().dialect.supports_comments:
        for table, name, before, now in _COMMENTS:
            op.alter_column(table, name, comment=now, existing_comment=before)
    for view in (LEADERBOARD, PARETO_FRONT, LAYER_LOSSES, TRAINED_VARIANTS):
        op.execute(view)


def _link(table: str, meaning: str) -> None:
    name = f"fk_{table}_training_key"
    if op.get_bind().dialect.name == "sqlite":
        # SQLite adds constraints with their column alone, which Alembic does not know of.
        target = f"VARCHAR(64) CONSTRAINT {name} REFERENCES trainings (key)"
        op.execute(f"ALTER TABLE {table} ADD COLUMN training_key {target}")
        return
    key = sa.ForeignKey("trainings.key", name=op.f(name))
    op.add_column(table, sa.Column("training_key", sa.String(64), key, nullable=True, comment=meaning))


def _create_trainings() -> None:
    op.create_table(
        "trainings",
        *_columns_of_trainings(),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'no_better', 'stopped')", name=op.f("ck_trainings_status")
        ),
        sa.CheckConstraint(
            "(status = 'stopped') = (stopped_because IS NOT NULL)", name=op.f("ck_trainings_stopped_because")
        ),
        sa.ForeignKeyConstraint(["detector_sha256"], ["detectors.sha256"], name=op.f("fk_trainings_detector_sha256")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_trainings")),
        comment="Trainings, each of which many variants may share; one that failed is in failure_records under its key",
    )
    op.create_index(op.f("ix_trainings_detector_sha256"), "trainings", ["detector_sha256"], unique=False)
    op.create_table(
        "training_points",
        *_columns_of_training_points(),
        sa.ForeignKeyConstraint(
            ["training_key"], ["trainings.key"], name=op.f("fk_training_points_training_key"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("training_key", "step", name=op.f("pk_training_points")),
        comment="Learning curves, point by point",
    )


def _columns_of_axes() -> Iterator[sa.Column]:
    yield sa.Column(
        "trainer",
        sa.Text(),
        nullable=True,
        comment="Framework of the training: keras or torch; NULL where nothing is trained",
    )
    yield sa.Column(
        "epochs",
        sa.Integer(),
        nullable=True,
        comment="How often each training image is seen; 0 in untrained twins, NULL outside of QAT",
    )
    yield sa.Column(
        "learning_rate", sa.Double(), nullable=True, comment="Peak of the learning rate; NULL where nothing is trained"
    )
    yield sa.Column(
        "distillation_weight",
        sa.Double(),
        nullable=True,
        comment="Share of the float detector's answers in the loss; NULL where nothing is trained",
    )
    yield sa.Column(
        "freeze_point",
        sa.Double(),
        nullable=True,
        comment="Share of the updates after which ranges stay; NULL where nothing is trained",
    )
    yield sa.Column(
        "training_seed",
        sa.BigInteger(),
        nullable=True,
        comment="Seed of order and augmentation of training images; NULL where nothing is trained",
    )


def _columns_of_trainings() -> Iterator[sa.Column]:
    yield sa.Column(
        "key", sa.String(length=64), nullable=False, comment="sha256 of detector, scheme, recipe, images and versions"
    )
    yield sa.Column("detector_sha256", sa.String(length=64), nullable=False, comment="The detector that it starts from")
    yield sa.Column("trainer", sa.Text(), nullable=False, comment="Framework: keras or torch")
    yield sa.Column("recipe", sa.JSON(), nullable=False, comment="All fields of the recipe")
    yield sa.Column(
        "dataset_fingerprint",
        sa.Text(),
        nullable=False,
        comment="The training images and their annotations; not a row of datasets",
    )
    yield sa.Column("images", sa.Integer(), nullable=False, comment="Training images, those held out included")
    yield sa.Column(
        "held_out_images",
        sa.Integer(),
        nullable=False,
        comment="Of these, kept apart to see when training stops helping",
    )
    yield sa.Column("steps", sa.Integer(), nullable=False, comment="Updates planned")
    yield sa.Column("step", sa.Integer(), nullable=False, comment="Updates done")
    yield sa.Column(
        "best_step",
        sa.Integer(),
        nullable=False,
        comment="Updates done at the lowest held-out loss: the weights that are kept",
    )
    yield sa.Column("best_held_out_loss", sa.Double(), nullable=False, comment="Held-out loss there")
    yield sa.Column("first_held_out_loss", sa.Double(), nullable=False, comment="Held-out loss before the first update")
    yield sa.Column(
        "trained_sha256",
        sa.String(length=64),
        nullable=False,
        comment="The best weights and ranges: their file in artifact storage",
    )
    yield sa.Column("device", sa.Text(), nullable=False, comment="Where it computes: cpu, or the name of the GPU")
    yield sa.Column(
        "status",
        sa.Text(),
        nullable=False,
        comment="running (or interrupted), finished, no_better (the held-out loss did not fall any more) or stopped "
        "(nobody waited for it any longer)",
    )
    yield sa.Column(
        "stopped_because", sa.Text(), nullable=True, comment="Why it was stopped, in one line; NULL unless it was"
    )
    yield sa.Column(
        "seconds", sa.Double(), nullable=False, comment="Wall time in seconds, work of lost workers not included"
    )
    yield sa.Column(
        "core_seconds", sa.Double(), nullable=False, comment="CPU time in seconds, all threads together: what it cost"
    )
    yield sa.Column(
        "versions", sa.JSON(), nullable=False, comment="Versions of the packages that decide about the weights"
    )
    yield sa.Column(
        "updated_at",
        sa.DateTime(timezone=True),
        nullable=False,
        comment="When its latest point or its end was stored (UTC)",
    )


def _columns_of_training_points() -> Iterator[sa.Column]:
    yield sa.Column("training_key", sa.String(length=64), nullable=False, comment="The training")
    yield sa.Column("step", sa.Integer(), nullable=False, comment="Updates done")
    yield sa.Column(
        "held_out_loss",
        sa.Double(),
        nullable=False,
        comment="Total loss of the recipe on held-out training images, not augmented",
    )
    yield sa.Column(
        "loss",
        sa.Double(),
        nullable=True,
        comment="Mean total loss of the updates since the point before; NULL at the first point",
    )
    yield sa.Column("box_loss", sa.Double(), nullable=True, comment="Its part of the boxes against the labels")
    yield sa.Column("score_loss", sa.Double(), nullable=True, comment="Its part of the scores against the labels")
    yield sa.Column(
        "distillation_loss", sa.Double(), nullable=True, comment="Its part against the float detector's answers"
    )
    yield sa.Column(
        "learning_rate", sa.Double(), nullable=True, comment="Learning rate of the last update; NULL at the first point"
    )
    yield sa.Column(
        "images_per_second",
        sa.Double(),
        nullable=True,
        comment="Training images a second of wall time since the point before",
    )
    yield sa.Column(
        "seconds",
        sa.Double(),
        nullable=False,
        comment="Wall time of the training so far in seconds, work of lost workers not included",
    )
    yield sa.Column(
        "core_seconds",
        sa.Double(),
        nullable=False,
        comment="CPU time of the training so far in seconds, all threads together",
    )
