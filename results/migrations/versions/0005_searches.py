"""Searches: studies and sweeps for the best, what they decided about variants, and on how much evidence."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
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
        x.stage AS failure_stage, x.reason AS failure_reason, x.message AS failure_message
    FROM sweep_variants sv
    JOIN sweeps s ON s.key = sv.sweep_key
    JOIN variants v ON v.key = sv.variant_key
    LEFT JOIN artifacts f ON f.sha256 = sv.artifact_sha256
    LEFT JOIN scored a ON a.key = sv.accuracy_key
    LEFT JOIN latencies l ON l.key = sv.latency_key
    LEFT JOIN profiles p ON p.key = l.key
    LEFT JOIN latencies o ON o.key = sv.own_latency_key
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
    keep_float, transform, memory_layout, activation_type, bias_correction, threads, runtime_options, simulated, status,
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

STUDY_TRIALS = """
CREATE VIEW study_trials AS
SELECT s.name AS study, s.key AS study_key, s.kind AS kind, d.trial AS trial, v.label AS variant,
    v.key AS variant_key, d.kind AS verdict, d.images AS images, d.all_images AS all_images, d.loss AS loss,
    d.loss_low AS loss_low, d.loss_high AS loss_high, d.because AS because, l.ratio AS latency_ratio,
    d.inferred AS inferred, d.decided_at AS decided_at
FROM verdicts d
JOIN sweep_variants sv ON sv.sweep_key = d.sweep_key AND sv.variant_key = d.variant_key
JOIN sweeps s ON s.key = d.sweep_key
JOIN variants v ON v.key = d.variant_key
LEFT JOIN latencies l ON l.key = sv.latency_key
"""

_STATUS_NOW = "status IN ('pending', 'done', 'stopped', 'failed')"

_STATUS_COMMENTS = (
    "pending, done or failed",
    "pending, done, stopped (it was made and timed, and not scored on every image), or failed",
)

_FINISHED_COMMENTS = (
    "When every variant was settled; NULL before (UTC)",
    "When every variant was settled, or the search ended; NULL before (UTC)",
)

_SWEEPS_COMMENTS = (
    "Fixed lists of variants of one detector on one evaluation set",
    "Fixed lists of variants of one detector on one evaluation set, and how they are measured",
)

_CONFIRM_ACCURACY = "The accuracy on the confirmation images, which no choice was made by; NULL if it was not confirmed"


def upgrade() -> None:
    """Makes what was swept before a sweep without verdicts, then makes the views anew."""
    for view in ("pareto_front", "leaderboard"):
        op.execute(f"DROP VIEW {view}")
    _extend_sweeps()
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_sweep_variants()
    else:
        _extend_sweep_variants()
    _create_verdicts()
    for view in (LEADERBOARD, PARETO_FRONT, STUDY_TRIALS):
        op.execute(view)


def _extend_sweeps() -> None:
    op.add_column(
        "sweeps",
        sa.Column(
            "kind",
            sa.Text(),
            server_default=sa.text("'sweep'"),
            nullable=False,
            comment="sweep (every variant is measured), study (a sampler chooses) or find_best (in order of latency, "
            "until one is within the budget)",
        ),
    )
    name = "fk_sweeps_confirm_fingerprint"
    if op.get_bind().dialect.name == "sqlite":
        # SQLite adds constraints with their column alone, which Alembic does not know of.
        target = f"VARCHAR(64) CONSTRAINT {name} REFERENCES datasets (fingerprint)"
        op.execute(f"ALTER TABLE sweeps ADD COLUMN confirm_fingerprint {target}")
        return
    meaning = "Further images that the winner is confirmed on; NULL if there are none"
    key = sa.ForeignKey("datasets.fingerprint", name=op.f(name))
    op.add_column("sweeps", sa.Column("confirm_fingerprint", sa.String(64), key, nullable=True, comment=meaning))
    before, now = _FINISHED_COMMENTS
    op.alter_column("sweeps", "finished_at", comment=now, existing_comment=before)
    before, now = _SWEEPS_COMMENTS
    op.create_table_comment("sweeps", now, existing_comment=before)


def _extend_sweep_variants() -> None:
    op.drop_constraint(op.f("ck_sweep_variants_status"), "sweep_variants", type_="check")
    op.create_check_constraint(op.f("ck_sweep_variants_status"), "sweep_variants", _STATUS_NOW)
    before, now = _STATUS_COMMENTS
    op.alter_column("sweep_variants", "status", comment=now, existing_comment=before)
    key = sa.ForeignKey("accuracies.key", name=op.f("fk_sweep_variants_confirm_accuracy_key"))
    op.add_column(
        "sweep_variants",
        sa.Column("confirm_accuracy_key", sa.String(64), key, nullable=True, comment=_CONFIRM_ACCURACY),
    )


def _rebuild_sweep_variants() -> None:
    # SQLite cannot change a check. The table gets its name when it is made, as renaming one fails while views, the
    # user's own among them, refer to a table that is gone. No table refers to this one yet, so nothing is lost with it.
    names = (
        "sweep_key, variant_key, position, status, request_key, artifact_sha256, accuracy_key, latency_key, "
        "own_latency_key, failure_key, settled_at"
    )
    op.execute("CREATE TEMPORARY TABLE kept_sweep_variants AS SELECT * FROM sweep_variants")
    op.execute("DROP TABLE sweep_variants")
    op.create_table("sweep_variants", *_columns_of_sweep_variants(), *_constraints_of_sweep_variants())
    op.execute(f"INSERT INTO sweep_variants ({names}) SELECT {names} FROM temp.kept_sweep_variants")
    op.execute("DROP TABLE temp.kept_sweep_variants")
    op.create_index(op.f("ix_sweep_variants_variant_key"), "sweep_variants", ["variant_key"], unique=False)


def _columns_of_sweep_variants() -> Iterator[sa.Column]:
    # SQLite keeps no comments.
    yield sa.Column("sweep_key", sa.String(length=64), nullable=False)
    yield sa.Column("variant_key", sa.String(length=64), nullable=False)
    yield sa.Column("position", sa.Integer(), nullable=False)
    yield sa.Column("status", sa.Text(), nullable=False)
    for name in _REFERENCES:
        yield sa.Column(name, sa.String(length=64), nullable=True)
    yield sa.Column("request_key", sa.String(length=64), nullable=True)
    yield sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True)


_REFERENCES = {
    "artifact_sha256": "artifacts.sha256",
    "accuracy_key": "accuracies.key",
    "latency_key": "latencies.key",
    "own_latency_key": "latencies.key",
    "confirm_accuracy_key": "accuracies.key",
    "failure_key": "failure_records.key",
}


def _constraints_of_sweep_variants() -> Iterator[sa.Constraint]:
    yield sa.CheckConstraint(_STATUS_NOW, name=op.f("ck_sweep_variants_status"))
    for name, target in {"sweep_key": "sweeps.key", "variant_key": "variants.key", **_REFERENCES}.items():
        yield sa.ForeignKeyConstraint([name], [target], name=op.f(f"fk_sweep_variants_{name}"))
    yield sa.PrimaryKeyConstraint("sweep_key", "variant_key", name=op.f("pk_sweep_variants"))


def _create_verdicts() -> None:
    op.create_table(
        "verdicts",
        *_columns_of_verdicts(),
        sa.ForeignKeyConstraint(
            ["sweep_key", "variant_key"],
            ["sweep_variants.sweep_key", "sweep_variants.variant_key"],
            name=op.f("fk_verdicts_sweep_key"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sweep_key", "variant_key", name=op.f("pk_verdicts")),
        comment="What searches decided about variants, and on how much evidence",
    )


def _columns_of_verdicts() -> Iterator[sa.Column]:
    yield sa.Column(
        "sweep_key",
        sa.String(length=64),
        nullable=False,
        comment="The sweep, study or search for the best",
    )
    yield sa.Column(
        "variant_key",
        sa.String(length=64),
        nullable=False,
        comment="The variant",
    )
    yield sa.Column(
        "kind",
        sa.Text(),
        nullable=False,
        comment="What was decided: feasible, infeasible, dominated (surely slower than a feasible one), no_gain (not "
        "faster than a feasible one, within the error of measurement), noisy, unsupported, failed, or unsettled (the "
        "search ended first)",
    )
    yield sa.Column(
        "images",
        sa.Integer(),
        nullable=False,
        comment="Images that it was scored on by then; 0 if its accuracy was not asked for",
    )
    yield sa.Column(
        "all_images",
        sa.Integer(),
        nullable=False,
        comment="Images of the whole evaluation; with fewer, loss is of a part of them and no score",
    )
    yield sa.Column(
        "loss",
        sa.Double(),
        nullable=True,
        comment="Loss of the budget's metric on those images, as the budget counts it; NULL if none",
    )
    yield sa.Column(
        "loss_low",
        sa.Double(),
        nullable=True,
        comment="Lower end of the interval of the loss; NULL if none",
    )
    yield sa.Column(
        "loss_high",
        sa.Double(),
        nullable=True,
        comment="Upper end of the interval of the loss; NULL if none",
    )
    yield sa.Column(
        "level",
        sa.Double(),
        nullable=True,
        comment="Nominal coverage of the interval, in (0, 1); NULL if none",
    )
    yield sa.Column(
        "resamples",
        sa.Integer(),
        nullable=True,
        comment="Number of bootstrap resamples drawn; NULL if none",
    )
    yield sa.Column(
        "seed",
        sa.BigInteger(),
        nullable=True,
        comment="Seed of the draws; NULL if none",
    )
    yield sa.Column(
        "because",
        sa.Text(),
        nullable=False,
        comment="Why, in one line",
    )
    yield sa.Column(
        "trial",
        sa.Integer(),
        nullable=True,
        comment="Number of the trial that asked for it, from 0; NULL if none did",
    )
    yield sa.Column(
        "inferred",
        sa.BigInteger(),
        nullable=False,
        comment="Images that went through the artifact for its sake in this search; 0 where all was known already",
    )
    yield sa.Column(
        "decided_at",
        sa.DateTime(timezone=True),
        nullable=False,
        comment="When it was decided last (UTC)",
    )
