"""The first schema: tables of detectors, artifacts, measurements and sweeps, and the views that readers use."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# One text for SQLite and PostgreSQL. -1 is COCO's "nothing to score"; here it becomes NULL.
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
ranked AS (
    SELECT
        s.name AS sweep, s.key AS sweep_key, v.label AS variant, v.key AS variant_key, sv.position AS position,
        (v.key = s.reference_variant_key) AS is_reference,
        v.runtime AS runtime, v.scheme AS scheme, v.toolchain AS toolchain, v.granularity AS granularity,
        v.calibration_images AS calibration_images, v.calibration_seed AS calibration_seed, v.threads AS threads,
        sv.status AS status,
        a.ap AS ap, a.ap50 AS ap50, a.ap75 AS ap75,
        a.ap_small AS ap_small, a.ap_medium AS ap_medium, a.ap_large AS ap_large,
        r.ap - a.ap AS ap_loss, r.ap50 - a.ap50 AS ap50_loss, r.ap75 - a.ap75 AS ap75_loss,
        r.ap_small - a.ap_small AS ap_small_loss, r.ap_medium - a.ap_medium AS ap_medium_loss,
        r.ap_large - a.ap_large AS ap_large_loss,
        a.images AS images, a.detections AS detections,
        l.latency_ms_p50 AS latency_ms_p50, l.latency_ms_p90 AS latency_ms_p90, l.latency_ms_p99 AS latency_ms_p99,
        l.reference_ms_p50 AS reference_ms_p50,
        l.ratio AS latency_ratio, l.ratio_low AS latency_ratio_low, l.ratio_high AS latency_ratio_high,
        l.converged AS latency_converged, l.postprocessing_ms_p50 AS postprocessing_ms_p50, l.load_ms AS load_ms,
        f.size_bytes AS size_bytes, f.compressed_bytes AS compressed_bytes, f.int8_mac_share AS int8_mac_share,
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
    calibration_images, calibration_seed, threads, status, ap, ap50, ap75, ap_small, ap_medium, ap_large,
    ap_loss, ap50_loss, ap75_loss, ap_small_loss, ap_medium_loss, ap_large_loss, images, detections,
    latency_ms_p50, latency_ms_p90, latency_ms_p99, reference_ms_p50,
    latency_ratio, latency_ratio_low, latency_ratio_high, latency_converged, postprocessing_ms_p50, load_ms,
    size_bytes, compressed_bytes, int8_mac_share, artifact_sha256, structure_sha256, detections_sha256,
    scorer, confirmed_by, host, budget_loss,
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

CLASS_LOSSES = """
CREATE VIEW class_losses AS
SELECT s.name AS sweep, s.key AS sweep_key, v.label AS variant, v.key AS variant_key,
    c.category_id AS category_id, c.name AS category, NULLIF(c.ap, -1) AS ap, NULLIF(r.ap, -1) AS reference_ap,
    NULLIF(r.ap, -1) - NULLIF(c.ap, -1) AS ap_loss
FROM sweep_variants sv
JOIN sweeps s ON s.key = sv.sweep_key
JOIN variants v ON v.key = sv.variant_key
JOIN accuracies a ON a.key = sv.accuracy_key
JOIN class_accuracies c ON c.accuracy_key = a.key
LEFT JOIN sweep_variants rv ON rv.sweep_key = s.key AND rv.variant_key = s.reference_variant_key
LEFT JOIN accuracies ra ON ra.key = rv.accuracy_key AND ra.dataset_fingerprint = a.dataset_fingerprint
LEFT JOIN class_accuracies r ON r.accuracy_key = ra.key AND r.category_id = c.category_id
"""

FAILURES = """
CREATE VIEW failures AS
SELECT s.name AS sweep, s.key AS sweep_key, v.label AS variant, v.key AS variant_key,
    x.stage AS stage, x.reason AS reason, x.message AS message, x.detail AS detail, x.created_at AS created_at
FROM sweep_variants sv
JOIN sweeps s ON s.key = sv.sweep_key
JOIN variants v ON v.key = sv.variant_key
JOIN failure_records x ON x.key = sv.failure_key
WHERE sv.status = 'failed'
"""


def upgrade() -> None:
    """Creates all tables, then the views, each after those that it reads."""
    op.create_table(
        "artifacts",
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="sha256 of the file"),
        sa.Column("format", sa.Text(), nullable=False, comment="File format, which is its suffix without the dot"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="Size of the file in bytes"),
        sa.Column("compressed_bytes", sa.BigInteger(), nullable=False, comment="Size in bytes after zlib at level 6"),
        sa.Column(
            "structure_sha256",
            sa.String(length=64),
            nullable=False,
            comment="Hash of the graph without the values of weights, scales and zero points",
        ),
        sa.Column(
            "int8_mac_share",
            sa.Double(),
            nullable=False,
            comment="Share of multiply-accumulates in int8 arithmetic (static or dynamic), in [0, 1]",
        ),
        sa.Column("audit", sa.JSON(), nullable=False, comment="What the file really holds, read back from its bytes"),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_artifacts")),
        comment="Model files in artifact storage",
    )
    op.create_index(op.f("ix_artifacts_structure_sha256"), "artifacts", ["structure_sha256"], unique=False)
    op.create_table(
        "datasets",
        sa.Column(
            "fingerprint",
            sa.String(length=64),
            nullable=False,
            comment="sha256 of the images' bytes, their ids and the annotations",
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="Name for people"),
        sa.Column("images", sa.Integer(), nullable=False, comment="Number of images"),
        sa.Column("categories", sa.JSON(), nullable=False, comment="Category names by category id"),
        sa.Column("annotations", sa.Text(), nullable=False, comment="Where the annotations were read from"),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_datasets")),
        comment="Evaluation sets",
    )
    op.create_table(
        "detectors",
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="sha256 of the canonical safetensors file"),
        sa.Column("name", sa.Text(), nullable=False, comment="Name for people, usually the file's name"),
        sa.Column(
            "spec", sa.JSON(), nullable=False, comment="Architecture: depth multiplier, image size, classes, anchors"
        ),
        sa.Column(
            "parameters", sa.BigInteger(), nullable=False, comment="Number of weights and biases, batch norm folded"
        ),
        sa.Column("macs", sa.BigInteger(), nullable=False, comment="Multiply-accumulates of one inference"),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_detectors")),
        comment="Float detectors that variants are made from",
    )
    op.create_table(
        "failure_records",
        sa.Column(
            "key",
            sa.String(length=64),
            nullable=False,
            comment="Key of the artifact request, accuracy or latency that has no result",
        ),
        sa.Column(
            "stage",
            sa.Text(),
            nullable=False,
            comment="Where it happened: calibrate, quantize, detect, score, benchmark",
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="Identifier of the kind of failure"),
        sa.Column("message", sa.Text(), nullable=False, comment="One line for a person"),
        sa.Column("detail", sa.Text(), nullable=False, comment="Traceback or log"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was recorded last (UTC)"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_failure_records")),
        comment="Why a key has no result",
    )
    op.create_table(
        "hosts",
        sa.Column("fingerprint", sa.String(length=64), nullable=False, comment="sha256 of the properties"),
        sa.Column(
            "properties", sa.JSON(), nullable=False, comment="CPU model, ISA flags, cores, memory, kernel, versions"
        ),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_hosts")),
        comment="Machines that latencies were measured on",
    )
    op.create_table(
        "accuracies",
        sa.Column(
            "key",
            sa.String(length=64),
            nullable=False,
            comment="sha256 of artifact, evaluation set, preprocessing, postprocessing and runtime version",
        ),
        sa.Column("artifact_sha256", sa.String(length=64), nullable=False, comment="The artifact that was evaluated"),
        sa.Column("dataset_fingerprint", sa.String(length=64), nullable=False, comment="The evaluation set"),
        sa.Column(
            "ap",
            sa.Double(),
            nullable=False,
            comment="Average precision over IoU .50 to .95, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ap50",
            sa.Double(),
            nullable=False,
            comment="Average precision at IoU .50, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ap75",
            sa.Double(),
            nullable=False,
            comment="Average precision at IoU .75, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ap_small",
            sa.Double(),
            nullable=False,
            comment="AP of objects below 32 x 32 pixels, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ap_medium",
            sa.Double(),
            nullable=False,
            comment="AP of objects between 32 x 32 and 96 x 96 pixels, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ap_large",
            sa.Double(),
            nullable=False,
            comment="AP of objects above 96 x 96 pixels, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ar1",
            sa.Double(),
            nullable=False,
            comment="Average recall with 1 detection an image, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ar10",
            sa.Double(),
            nullable=False,
            comment="Average recall with 10 detections an image, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ar100",
            sa.Double(),
            nullable=False,
            comment="Average recall with 100 detections an image, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ar_small",
            sa.Double(),
            nullable=False,
            comment="AR of objects below 32 x 32 pixels, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ar_medium",
            sa.Double(),
            nullable=False,
            comment="AR of objects between 32 x 32 and 96 x 96 pixels, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column(
            "ar_large",
            sa.Double(),
            nullable=False,
            comment="AR of objects above 96 x 96 pixels, in [0, 1]; -1 if there is nothing to score",
        ),
        sa.Column("images", sa.Integer(), nullable=False, comment="Number of images evaluated"),
        sa.Column("detections", sa.BigInteger(), nullable=False, comment="Number of detections scored"),
        sa.Column(
            "detections_sha256",
            sa.String(length=64),
            nullable=False,
            comment="The detections' file in artifact storage",
        ),
        sa.Column("scorer", sa.Text(), nullable=False, comment="What computed the statistics, with its version"),
        sa.Column(
            "confirmed_by",
            sa.Text(),
            nullable=True,
            comment="Reference scorer that gave the same statistics, with its version; or NULL",
        ),
        sa.Column("settings", sa.JSON(), nullable=False, comment="Preprocessing, postprocessing and runtime versions"),
        sa.ForeignKeyConstraint(["artifact_sha256"], ["artifacts.sha256"], name=op.f("fk_accuracies_artifact_sha256")),
        sa.ForeignKeyConstraint(
            ["dataset_fingerprint"], ["datasets.fingerprint"], name=op.f("fk_accuracies_dataset_fingerprint")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_accuracies")),
        comment="COCO statistics of one artifact on one evaluation set",
    )
    op.create_index(op.f("ix_accuracies_artifact_sha256"), "accuracies", ["artifact_sha256"], unique=False)
    op.create_table(
        "artifact_requests",
        sa.Column(
            "key",
            sa.String(length=64),
            nullable=False,
            comment="sha256 of detector, scheme, calibration images and toolchain versions",
        ),
        sa.Column("detector_sha256", sa.String(length=64), nullable=False, comment="The float detector"),
        sa.Column("scheme", sa.JSON(), nullable=False, comment="The scheme with all its axes"),
        sa.Column(
            "versions", sa.JSON(), nullable=False, comment="Versions of the packages that decide about the bytes"
        ),
        sa.Column("artifact_sha256", sa.String(length=64), nullable=False, comment="The file that came out"),
        sa.Column(
            "build_seconds",
            sa.Double(),
            nullable=False,
            comment="Wall time of the build in seconds, calibration not included",
        ),
        sa.ForeignKeyConstraint(
            ["artifact_sha256"], ["artifacts.sha256"], name=op.f("fk_artifact_requests_artifact_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["detector_sha256"], ["detectors.sha256"], name=op.f("fk_artifact_requests_detector_sha256")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_artifact_requests")),
        comment="Which request gave which artifact; a request that failed is in failure_records under the same key",
    )
    op.create_index(
        op.f("ix_artifact_requests_artifact_sha256"), "artifact_requests", ["artifact_sha256"], unique=False
    )
    op.create_table(
        "latencies",
        sa.Column(
            "key",
            sa.String(length=64),
            nullable=False,
            comment="sha256 of artifact structure, runtime settings and version, and host",
        ),
        sa.Column("structure_sha256", sa.String(length=64), nullable=False, comment="The structure that was timed"),
        sa.Column(
            "settings", sa.JSON(), nullable=False, comment="Runtime, threads, versions, limits of the measurement"
        ),
        sa.Column("host_fingerprint", sa.String(length=64), nullable=False, comment="The machine"),
        sa.Column("latency_ms_p50", sa.Double(), nullable=False, comment="Median inference time in ms an image"),
        sa.Column("latency_ms_p90", sa.Double(), nullable=False, comment="90 % quantile of the inference time in ms"),
        sa.Column("latency_ms_p99", sa.Double(), nullable=False, comment="99 % quantile of the inference time in ms"),
        sa.Column(
            "reference_ms_p50",
            sa.Double(),
            nullable=False,
            comment="Median inference time in ms of the LiteRT float32 reference in the same run",
        ),
        sa.Column("ratio", sa.Double(), nullable=False, comment="Median over pairs of variant time / reference time"),
        sa.Column(
            "ratio_low", sa.Double(), nullable=False, comment="Lower end of the 95 % bootstrap interval of the ratio"
        ),
        sa.Column(
            "ratio_high", sa.Double(), nullable=False, comment="Upper end of the 95 % bootstrap interval of the ratio"
        ),
        sa.Column(
            "postprocessing_ms_p50",
            sa.Double(),
            nullable=False,
            comment="Median time in ms from raw outputs to detections",
        ),
        sa.Column(
            "load_ms", sa.Double(), nullable=False, comment="Time in ms to load the artifact and allocate its tensors"
        ),
        sa.Column("pairs", sa.Integer(), nullable=False, comment="Number of (reference, variant) pairs timed"),
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
            comment="Raw [reference, variant] times in ms of each pair, in order",
        ),
        sa.Column(
            "conditions",
            sa.JSON(),
            nullable=False,
            comment="State of the machine during the run: load average, CPU steal share, ...",
        ),
        sa.ForeignKeyConstraint(
            ["host_fingerprint"], ["hosts.fingerprint"], name=op.f("fk_latencies_host_fingerprint")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_latencies")),
        comment="Latency of one artifact structure on one host",
    )
    op.create_index(op.f("ix_latencies_structure_sha256"), "latencies", ["structure_sha256"], unique=False)
    op.create_table(
        "variants",
        sa.Column(
            "key", sa.String(length=64), nullable=False, comment="sha256 of detector, scheme and runtime settings"
        ),
        sa.Column("detector_sha256", sa.String(length=64), nullable=False, comment="The float detector"),
        sa.Column(
            "label", sa.Text(), nullable=False, comment="Readable name, unique among the variants of one detector"
        ),
        sa.Column("runtime", sa.Text(), nullable=False, comment="Identifier of the runtime"),
        sa.Column("scheme", sa.Text(), nullable=False, comment="Identifier of the scheme"),
        sa.Column("toolchain", sa.Text(), nullable=False, comment="What makes the artifact"),
        sa.Column(
            "granularity", sa.Text(), nullable=True, comment="per_channel or per_tensor; NULL where the scheme has none"
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
        sa.Column("threads", sa.Integer(), nullable=False, comment="Intra-operator threads"),
        sa.Column("scheme_json", sa.JSON(), nullable=False, comment="The scheme with all its axes"),
        sa.Column("settings_json", sa.JSON(), nullable=False, comment="The runtime settings"),
        sa.ForeignKeyConstraint(["detector_sha256"], ["detectors.sha256"], name=op.f("fk_variants_detector_sha256")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_variants")),
        comment="Candidates: a scheme and the settings it runs with",
    )
    op.create_index(op.f("ix_variants_label"), "variants", ["label"], unique=False)
    op.create_table(
        "class_accuracies",
        sa.Column("accuracy_key", sa.String(length=64), nullable=False, comment="The evaluation"),
        sa.Column(
            "category_id",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Category id as in the annotations",
        ),
        sa.Column("name", sa.Text(), nullable=True, comment="Category name; NULL if the annotations do not name it"),
        sa.Column("ap", sa.Double(), nullable=False, comment="AP of this category, in [0, 1]; -1 if it has no objects"),
        sa.ForeignKeyConstraint(
            ["accuracy_key"], ["accuracies.key"], name=op.f("fk_class_accuracies_accuracy_key"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("accuracy_key", "category_id", name=op.f("pk_class_accuracies")),
        comment="AP by category",
    )
    op.create_table(
        "sweeps",
        sa.Column(
            "key",
            sa.String(length=64),
            nullable=False,
            comment="sha256 of name, spec, detector, evaluation set, provenance and variants",
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="Name given in the spec"),
        sa.Column("spec", sa.Text(), nullable=False, comment="Text of the spec file"),
        sa.Column("detector_sha256", sa.String(length=64), nullable=False, comment="The float detector"),
        sa.Column("dataset_fingerprint", sa.String(length=64), nullable=False, comment="The evaluation set"),
        sa.Column(
            "provenance",
            sa.JSON(),
            nullable=False,
            comment="Seeds, calibration images and versions that the results depend on",
        ),
        sa.Column(
            "budget_metric",
            sa.Text(),
            nullable=True,
            comment="Column of the statistic that the budget is about, such as ap; NULL without a budget",
        ),
        sa.Column(
            "budget_max_loss",
            sa.Double(),
            nullable=True,
            comment="Largest loss allowed: points in [0, 1], or a share of the reference's value",
        ),
        sa.Column(
            "budget_relative",
            sa.Boolean(),
            nullable=True,
            comment="Whether the largest loss is a share of the reference's value",
        ),
        sa.Column(
            "reference_variant_key",
            sa.String(length=64),
            nullable=False,
            comment="The LiteRT float32 variant that losses refer to",
        ),
        sa.Column("artifacts_url", sa.Text(), nullable=False, comment="Folder or fsspec URL of the artifact storage"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, comment="First start (UTC)"),
        sa.Column("resumed_at", sa.DateTime(timezone=True), nullable=False, comment="Latest start (UTC)"),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When every variant was settled; NULL before (UTC)",
        ),
        sa.ForeignKeyConstraint(
            ["dataset_fingerprint"], ["datasets.fingerprint"], name=op.f("fk_sweeps_dataset_fingerprint")
        ),
        sa.ForeignKeyConstraint(["detector_sha256"], ["detectors.sha256"], name=op.f("fk_sweeps_detector_sha256")),
        sa.ForeignKeyConstraint(
            ["reference_variant_key"], ["variants.key"], name=op.f("fk_sweeps_reference_variant_key")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sweeps")),
        comment="Fixed lists of variants of one detector on one evaluation set",
    )
    op.create_index(op.f("ix_sweeps_name"), "sweeps", ["name"], unique=False)
    op.create_table(
        "sweep_variants",
        sa.Column("sweep_key", sa.String(length=64), nullable=False, comment="The sweep"),
        sa.Column("variant_key", sa.String(length=64), nullable=False, comment="The variant"),
        sa.Column("position", sa.Integer(), nullable=False, comment="Place in the sweep's list, from 0"),
        sa.Column("status", sa.Text(), nullable=False, comment="pending, done or failed"),
        sa.Column(
            "request_key",
            sa.String(length=64),
            nullable=True,
            comment="Key of the artifact request, whether it succeeded or failed; NULL before",
        ),
        sa.Column("artifact_sha256", sa.String(length=64), nullable=True, comment="The artifact, if there is one"),
        sa.Column("accuracy_key", sa.String(length=64), nullable=True, comment="The accuracy, if there is one"),
        sa.Column("latency_key", sa.String(length=64), nullable=True, comment="The latency, if there is one"),
        sa.Column(
            "failure_key",
            sa.String(length=64),
            nullable=True,
            comment="Why it failed; NULL unless the status is failed",
        ),
        sa.Column(
            "settled_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the status was set last; NULL while it never was (UTC)",
        ),
        sa.CheckConstraint("status IN ('pending', 'done', 'failed')", name=op.f("ck_sweep_variants_status")),
        sa.ForeignKeyConstraint(["accuracy_key"], ["accuracies.key"], name=op.f("fk_sweep_variants_accuracy_key")),
        sa.ForeignKeyConstraint(
            ["artifact_sha256"], ["artifacts.sha256"], name=op.f("fk_sweep_variants_artifact_sha256")
        ),
        sa.ForeignKeyConstraint(["failure_key"], ["failure_records.key"], name=op.f("fk_sweep_variants_failure_key")),
        sa.ForeignKeyConstraint(["latency_key"], ["latencies.key"], name=op.f("fk_sweep_variants_latency_key")),
        sa.ForeignKeyConstraint(["sweep_key"], ["sweeps.key"], name=op.f("fk_sweep_variants_sweep_key")),
        sa.ForeignKeyConstraint(["variant_key"], ["variants.key"], name=op.f("fk_sweep_variants_variant_key")),
        sa.PrimaryKeyConstraint("sweep_key", "variant_key", name=op.f("pk_sweep_variants")),
        comment="Variants of a sweep and where their results are",
    )
    op.create_index(op.f("ix_sweep_variants_variant_key"), "sweep_variants", ["variant_key"], unique=False)
    for view in (LEADERBOARD, PARETO_FRONT, CLASS_LOSSES, FAILURES):
        op.execute(view)
