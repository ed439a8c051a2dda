"""Latency one can act on: rounds, conditions and throughput, where the time goes, and direct comparisons."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
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

OPERATORS = """
CREATE VIEW operators AS
WITH shared AS (
    SELECT o.*, o.time_ms / NULLIF(SUM(o.time_ms) OVER (PARTITION BY o.profile_key), 0) AS time_share
    FROM operator_times o
)
SELECT s.name AS sweep, s.key AS sweep_key, v.label AS variant, v.key AS variant_key, o.position AS position,
    o.name AS name, o.operator AS operator, o.role AS role, o.layer AS layer, o.arithmetic AS arithmetic,
    o.kernel AS kernel, o.macs AS macs, o.time_ms AS time_ms, o.time_share AS time_share, o.is_fallback AS is_fallback
FROM sweep_variants sv
JOIN sweeps s ON s.key = sv.sweep_key
JOIN variants v ON v.key = sv.variant_key
JOIN shared o ON o.profile_key = sv.latency_key
"""

_COMMENTS = {
    "ratio": (
        "Median over pairs of variant time / reference time",
        "Variant time / reference time: geometric mean over rounds of fresh processes of each round's median",
    ),
    "ratio_low": (
        "Lower end of the 95 % bootstrap interval of the ratio",
        "Lower end of the 95 % interval of the ratio",
    ),
    "ratio_high": (
        "Upper end of the 95 % bootstrap interval of the ratio",
        "Upper end of the 95 % interval of the ratio",
    ),
    "pairs": (
        "Number of (reference, variant) pairs timed",
        "Number of (reference, variant) pairs timed, over all rounds",
    ),
    "samples_ms": (
        "Raw [reference, variant] times in ms of each pair, in order",
        "Rounds in order: of each the [reference, variant] times in ms of its pairs",
    ),
}


def upgrade() -> None:
    """Makes what was measured before one round, adds columns and tables, then makes the views anew."""
    for view in ("pareto_front", "leaderboard"):
        op.execute(f"DROP VIEW {view}")
    _extend_latencies()
    _add_own_latency()
    _create_profiles()
    _create_comparisons()
    for view in (LEADERBOARD, PARETO_FRONT, OPERATORS):
        op.execute(view)


def _extend_latencies() -> None:
    # SQLite holds JSON as text; PostgreSQL has functions to build it.
    one_round = "'[' || samples_ms || ']'" if op.get_bind().dialect.name == "sqlite" else "json_build_array(samples_ms)"
    op.execute(f"UPDATE latencies SET samples_ms = {one_round}")
    for column in _columns_of_latencies():
        op.add_column("latencies", column)
    # SQLite keeps no comments.
    if op.get_bind().dialect.supports_comments:
        for name, (before, now) in _COMMENTS.items():
            op.alter_column("latencies", name, comment=now, existing_comment=before)


def _add_own_latency() -> None:
    name = "fk_sweep_variants_own_latency_key"
    if op.get_bind().dialect.name == "sqlite":
        # SQLite adds constraints with their column alone, which Alembic does not know of.
        target = f"VARCHAR(64) CONSTRAINT {name} REFERENCES latencies (key)"
        op.execute(f"ALTER TABLE sweep_variants ADD COLUMN own_latency_key {target}")
        return
    meaning = "A second latency, of the artifact's own bytes, measured because the variant won; NULL if it was not"
    key = sa.ForeignKey("latencies.key", name=op.f(name))
    op.add_column("sweep_variants", sa.Column("own_latency_key", sa.String(64), key, nullable=True, comment=meaning))


def _columns_of_latencies() -> Iterator[sa.Column]:
    yield sa.Column(
        "noisy",
        sa.JSON(),
        server_default=sa.text("'[]'"),
        nullable=False,
        comment="What was wrong with the conditions, a list of lines; empty for a run that can be trusted",
    )
    yield sa.Column(
        "attempts",
        sa.Integer(),
        server_default="1",
        nullable=False,
        comment="Which attempt this is, from 1: noisy ones are measured again, within a limit",
    )
    yield sa.Column(
        "rounds",
        sa.Integer(),
        server_default="1",
        nullable=False,
        comment="Number of rounds, each of fresh processes",
    )
    yield sa.Column(
        "images_per_second",
        sa.Double(),
        nullable=True,
        comment="Images a second of the whole machine, all copies together, inference alone; NULL if not measured",
    )
    yield sa.Column(
        "copies",
        sa.Integer(),
        nullable=True,
        comment="Processes that ran at the same time for images_per_second, each on its own CPUs; NULL if not measured",
    )


def _create_profiles() -> None:
    op.create_table(
        "profiles",
        sa.Column("key", sa.String(length=64), nullable=False, comment="The latency whose time is taken apart"),
        sa.Column(
            "total_ms",
            sa.Double(),
            nullable=False,
            comment="Median time in ms of whole inferences of the same session, not profiled",
        ),
        sa.Column("repeats", sa.Integer(), nullable=False, comment="Inferences that each operator's median is of"),
        sa.Column("method", sa.Text(), nullable=False, comment="How times were taken"),
        sa.Column(
            "fallback_share",
            sa.Double(),
            nullable=False,
            comment="Share of the operators' time in fallbacks: float although the weights are stored as integers, or "
            "reference kernels; in [0, 1]",
        ),
        sa.Column(
            "conversion_share",
            sa.Double(),
            nullable=False,
            comment="Share of the operators' time in conversions of types or memory layouts, in [0, 1]",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was taken last (UTC)"),
        sa.ForeignKeyConstraint(["key"], ["latencies.key"], name=op.f("fk_profiles_key")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_profiles")),
        comment="Where the time of one artifact structure goes on one host",
    )
    op.create_table(
        "operator_times",
        sa.Column("profile_key", sa.String(length=64), nullable=False, comment="The profile"),
        sa.Column("position", sa.Integer(), nullable=False, comment="Place in the order of execution, from 0"),
        sa.Column("name", sa.Text(), nullable=False, comment="What the artifact or the runtime calls it"),
        sa.Column(
            "operator",
            sa.Text(),
            nullable=False,
            comment="Its kind in the runtime's words: CONV_2D, QLinearConv, ...",
        ),
        sa.Column(
            "role",
            sa.Text(),
            nullable=False,
            comment="convolution, conversion (of types or memory layouts; computes nothing) or other",
        ),
        sa.Column(
            "layer",
            sa.Text(),
            nullable=True,
            comment="Canonical name of the detector's layer that it belongs to; NULL if it belongs to none",
        ),
        sa.Column(
            "arithmetic",
            sa.Text(),
            nullable=False,
            comment="What it computes in: int8, float32, ...; other roles: element type of its output",
        ),
        sa.Column("kernel", sa.Text(), nullable=False, comment="What executes it, in the runtime's words"),
        sa.Column(
            "macs",
            sa.BigInteger(),
            nullable=False,
            comment="Multiply-accumulates of one inference; 0 unless it is a convolution",
        ),
        sa.Column("time_ms", sa.Double(), nullable=False, comment="Median time in ms in one inference"),
        sa.Column(
            "is_fallback",
            sa.Boolean(),
            nullable=False,
            comment="Whether it is in float although its weights are integers, or a reference kernel",
        ),
        sa.ForeignKeyConstraint(
            ["profile_key"], ["profiles.key"], name=op.f("fk_operator_times_profile_key"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("profile_key", "position", name=op.f("pk_operator_times")),
        comment="Time of each operator of a profile",
    )


def _create_comparisons() -> None:
    op.create_table(
        "comparisons",
        sa.Column(
            "key",
            sa.String(length=64),
            nullable=False,
            comment="sha256 of both artifacts and their settings, the method and the host",
        ),
        *_side("first"),
        *_side("second"),
        sa.Column("host_fingerprint", sa.String(length=64), nullable=False, comment="The machine"),
        sa.Column("first_ms_p50", sa.Double(), nullable=False, comment="Median inference time in ms of the first"),
        sa.Column("second_ms_p50", sa.Double(), nullable=False, comment="Median inference time in ms of the second"),
        sa.Column(
            "ratio",
            sa.Double(),
            nullable=False,
            comment="Second time / first time: geometric mean over rounds of each round's median",
        ),
        sa.Column("ratio_low", sa.Double(), nullable=False, comment="Lower end of the 95 % interval of the ratio"),
        sa.Column("ratio_high", sa.Double(), nullable=False, comment="Upper end of the 95 % interval of the ratio"),
        sa.Column(
            "pairs", sa.Integer(), nullable=False, comment="Number of (first, second) pairs timed, over all rounds"
        ),
        sa.Column("rounds", sa.Integer(), nullable=False, comment="Number of rounds, each of fresh processes"),
        sa.Column(
            "converged",
            sa.Boolean(),
            nullable=False,
            comment="Whether the interval reached the wanted width before the time cap",
        ),
        sa.Column(
            "samples_ms",
            sa.JSON(),
            nullable=False,
            comment="Rounds in order: of each the [first, second] times in ms of its pairs",
        ),
        sa.Column(
            "conditions",
            sa.JSON(),
            nullable=False,
            comment="State of the machine during the run: load average, CPU steal share, ...",
        ),
        sa.Column(
            "noisy",
            sa.JSON(),
            nullable=False,
            comment="What was wrong with the conditions, a list of lines; empty for a run that can be trusted",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was measured last (UTC)"),
        sa.ForeignKeyConstraint(
            ["first_artifact_sha256"], ["artifacts.sha256"], name=op.f("fk_comparisons_first_artifact_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["host_fingerprint"], ["hosts.fingerprint"], name=op.f("fk_comparisons_host_fingerprint")
        ),
        sa.ForeignKeyConstraint(
            ["second_artifact_sha256"], ["artifacts.sha256"], name=op.f("fk_comparisons_second_artifact_sha256")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_comparisons")),
        comment="Pairs of artifacts that were timed in turn, directly",
    )
    for side in ("first", "second"):
        name = f"{side}_artifact_sha256"
        op.create_index(op.f(f"ix_comparisons_{name}"), "comparisons", [name], unique=False)


def _side(side: str) -> Iterator[sa.Column]:
    yield sa.Column(f"{side}_label", sa.Text(), nullable=False, comment=f"Label of the {side} variant")
    yield sa.Column(f"{side}_artifact_sha256", sa.String(length=64), nullable=False, comment=f"The {side} artifact")
    yield sa.Column(
        f"{side}_structure_sha256", sa.String(length=64), nullable=False, comment=f"Structure of the {side} artifact"
    )
    yield sa.Column(
        f"{side}_settings", sa.JSON(), nullable=False, comment=f"Runtime, threads and options of the {side}"
    )
