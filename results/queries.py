"""What readers ask: lists of flat dictionaries of plain JSON values, from the views."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, Table, func, select
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from results import schema, views
from results.connect import name_of
from results.kept_failures import KEPT_FAILURES
from results.near_miss import NearMiss, near_miss
from results.ratios import ratios
from results.reading import Rows, choices, flat, plain_row, rows_of
from tasks.errors import UserMistake

_SHORTEST_PREFIX = 4

_AXES_IN_AUDIT = ("granularity", "input_type")
"""What an audit calls as the scheme calls its axis, though it may have found something else."""


def sweeps(engine: Engine) -> Rows:
    """Lists all sweeps, studies and searches for the best, the latest first.

    Args:
        engine: A database.

    Returns:
        Name, key, kind, detector, evaluation set, times, budget, artifact storage, the number of variants by status,
        and, of a study or search, `images_inferred`: the images that its verdicts took.
    """
    table, listed = schema.sweeps, schema.sweep_variants
    total = func.coalesce(func.sum(schema.verdicts.c.inferred), 0)
    inferred = select(total).where(schema.verdicts.c.sweep_key == table.c.key)
    counts = [func.count().filter(listed.c.status == status).label(status) for status in schema.STATUSES]
    query = (
        select(
            table.c.name.label("sweep"),
            table.c.key.label("sweep_key"),
            table.c.kind,
            schema.detectors.c.name.label("detector"),
            schema.detectors.c.sha256.label("detector_sha256"),
            schema.datasets.c.name.label("dataset"),
            schema.datasets.c.fingerprint.label("dataset_fingerprint"),
            schema.datasets.c.images,
            func.count().label("variants"),
            *counts,
            table.c.budget_metric,
            table.c.budget_max_loss,
            table.c.budget_relative,
            table.c.confirm_fingerprint,
            inferred.scalar_subquery().label("images_inferred"),
            table.c.artifacts_url,
            table.c.started_at,
            table.c.resumed_at,
            table.c.finished_at,
        )
        .join(schema.detectors, schema.detectors.c.sha256 == table.c.detector_sha256)
        .join(schema.datasets, schema.datasets.c.fingerprint == table.c.dataset_fingerprint)
        .join(listed, listed.c.sweep_key == table.c.key)
        .group_by(table.c.key, schema.detectors.c.sha256, schema.datasets.c.fingerprint)
        .order_by(table.c.resumed_at.desc(), table.c.key)
    )
    return rows_of(engine, query)


def find_sweep(engine: Engine, sweep: str | None = None) -> dict[str, Any]:
    """Finds one sweep, study or search for the best.

    Args:
        engine: A database.
        sweep: A name (the latest of that name is meant) or the start of a key; None for the latest of all.

    Returns:
        Its row of `sweeps`.

    Raises:
        UserMistake: If there is none; the message names near matches.
    """
    found = sweeps(engine)
    if not found:
        raise UserMistake("the database holds no sweep yet; run: quantsweep sweep SPEC, or quantsweep study SPEC")
    if sweep is None:
        return found[0]
    for row in found:
        if row["sweep"] == sweep:
            return row
    by_key = [row for row in found if len(sweep) >= _SHORTEST_PREFIX and row["sweep_key"].startswith(sweep)]
    if len(by_key) == 1:
        return by_key[0]
    raise UserMistake(f"there is no sweep {sweep!r}; {choices(sweep, [row['sweep'] for row in found])}")


def leaderboard(engine: Engine, sweep: str | None = None) -> Rows:
    """Lists the variants of a sweep, best first.

    Rows with a latency and within the budget come first, by rising latency ratio and, where they share
    a structure and so a ratio, by rising AP loss; then those over the budget, those
    without a latency, those that a search stopped before they had a score (in the same order), pending and
    failed ones. Of those within the budget, and of those over it, the ones whose
    latency is noisy come last. Ratios of different hosts are not compared: each host, the one with
    the most rows first, has its own run of rows.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Rows of the view `leaderboard`.

    Raises:
        UserMistake: If there is no such sweep.
    """
    rows = _of_sweep(engine, views.leaderboard, sweep)
    rows_of_host = {host: sum(row["host"] == host for row in rows) for host in {row["host"] for row in rows}}

    def rank(row: dict[str, Any]) -> tuple[Any, ...]:
        timed = row["status"] in ("done", "stopped") and row["latency_ratio"] is not None
        host = (-rows_of_host[row["host"]], row["host"]) if timed else (0, "")
        within = row["feasible"] is not False
        return (
            ("done", "stopped", "pending", "failed").index(row["status"]),
            not timed,
            host,
            not within,
            bool(row["latency_noisy"]),
            row["latency_ratio"] if timed else 0.0,
            row["ap_loss"] or 0.0,
            row["position"],
        )

    return sorted(rows, key=rank)


def pareto_front(engine: Engine, sweep: str | None = None) -> Rows:
    """Lists the variants of a sweep that no other beats in AP and latency at once, fastest first.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Rows of the view `pareto_front`.

    Raises:
        UserMistake: If there is no such sweep.
    """
    rows = _of_sweep(engine, views.pareto_front, sweep)
    return sorted(rows, key=lambda row: (row["host"] or "", row["latency_ratio"], row["position"]))


def failures(engine: Engine, sweep: str | None = None) -> Rows:
    """Lists the failed variants of a sweep.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Rows of the view `failures`, and `kept`: whether a rerun keeps the failure instead of trying again.

    Raises:
        UserMistake: If there is no such sweep.
    """
    rows = _of_sweep(engine, views.failures, sweep)
    return sorted(({**row, "kept": row["reason"] in KEPT_FAILURES} for row in rows), key=lambda row: row["variant"])


def nearest(engine: Engine, sweep: str | None = None, limit: int = 5) -> Rows:
    """Lists the variants that missed the budget by the least, whether or not another one is within it.

    Losses are those on every image where there is a score, and otherwise those that a search stopped on. Without the
    reference, what failed, and what has a noisy latency.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.
        limit: Most rows.

    Returns:
        The nearest first: `sweep`, `sweep_key`, `variant`, `variant_key`, `artifact_sha256`, `size_bytes`,
        `latency_ratio`, `latency_ratio_low`, `latency_ratio_high`, `verdict`; the budget (`budget_metric`,
        `budget_max_loss`, `budget_relative`); `budget_loss`, with its interval if there is one (`budget_loss_low`,
        `budget_loss_high`, `level`); `images` that it was scored on, of `all_images`, and `is_partial` if these are
        more; `excess`, the loss above the budget (at most 0 where a search ended before it was decided); and `needs`,
        what it would need to be within the budget. Empty without a budget.

    Raises:
        UserMistake: If there is no such sweep.
    """
    home = find_sweep(engine, sweep)
    table = schema.verdicts
    query = select(table.c.variant_key, table.c.level).where(table.c.sweep_key == home["sweep_key"])
    levels = {row["variant_key"]: row["level"] for row in rows_of(engine, query)}
    found = []
    for row in _of_sweep(engine, views.leaderboard, home["sweep_key"]):
        ap_level = _interval(engine, row).get("loss_interval", {}).get("level")
        miss = near_miss(row, home, levels.get(row["variant_key"]), ap_level)
        if miss is not None:
            found.append((miss.excess, row["latency_ratio"], row["position"], _missed(row, home, miss)))
    return [row for *_, row in sorted(found, key=lambda each: each[:3])[:limit]]


def _missed(row: Mapping[str, Any], sweep: Mapping[str, Any], miss: NearMiss) -> dict[str, Any]:
    named = ("sweep", "sweep_key", "variant", "variant_key", "artifact_sha256", "size_bytes", "latency_ratio",
             "latency_ratio_low", "latency_ratio_high", "verdict")  # fmt: skip
    return {
        **{name: row[name] for name in named},
        **{name: sweep[name] for name in ("budget_metric", "budget_max_loss", "budget_relative")},
        "budget_loss": miss.loss,
        "budget_loss_low": miss.low,
        "budget_loss_high": miss.high,
        "level": miss.level,
        "images": miss.images,
        "all_images": miss.all_images,
        "is_partial": miss.is_partial,
        "excess": miss.excess,
        "needs": miss.needs,
    }


def trainings(engine: Engine, sweep: str | None = None) -> Rows:
    """Lists the trained variants of a sweep: what each training cost, and what it bought.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Rows of the view `trained_variants`: the best AP first, then those that were not scored. Empty if no training
        has begun.

    Raises:
        UserMistake: If there is no such sweep.
    """
    rows = _of_sweep(engine, views.trained_variants, sweep)
    return sorted(rows, key=lambda row: (row["ap"] is None, -(row["ap"] or 0.0), row["core_seconds"], row["variant"]))


def learning_curve(engine: Engine, training: str, sweep: str | None = None) -> Rows:
    """Lists the points of a learning curve.

    Args:
        engine: A database.
        training: Start of the key of a training (at least 4 digits), or a variant that was trained (see
            `find_variant`).
        sweep: Where the variant is: name or start of the key; None for the latest.

    Returns:
        By rising number of updates: `training_key`, the columns of `training_points`, and `is_best`: whether the
        weights of this point are kept.

    Raises:
        UserMistake: If there is no such sweep or variant, or its training has not begun.
    """
    key = _training_key(engine, training, sweep)
    table, points = schema.trainings, schema.training_points
    query = (
        select(*points.c, (points.c.step == table.c.best_step).label("is_best"))
        .join(table, table.c.key == points.c.training_key)
        .where(table.c.key == key)
        .order_by(points.c.step)
    )
    return rows_of(engine, query)


def _training_key(engine: Engine, training: str, sweep: str | None) -> str:
    if len(training) >= _SHORTEST_PREFIX:
        key = schema.trainings.c.key
        found = rows_of(engine, select(key).where(func.substr(key, 1, len(training)) == training).limit(2))
        if len(found) == 1:
            return str(found[0]["key"])
    row = find_variant(engine, training, sweep)
    if row["training_key"] is None:
        why = "its training has not begun" if row["epochs"] else "nothing in it is trained"
        raise UserMistake(f"{row['variant']} has no learning curve: {why}")
    return str(row["training_key"])


def class_losses(engine: Engine, sweep: str | None = None, variant: str | None = None) -> Rows:
    """Lists AP and loss of each category, the largest loss first.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.
        variant: Only this one (see `find_variant`); None for all.

    Returns:
        Rows of the view `class_losses`.

    Raises:
        UserMistake: If there is no such sweep or variant.
    """
    key = None if variant is None else find_variant(engine, variant, sweep)["variant_key"]
    rows = [row for row in _of_sweep(engine, views.class_losses, sweep) if key in (None, row["variant_key"])]
    return sorted(rows, key=lambda row: (row["variant"], -(row["ap_loss"] or 0.0), row["category_id"]))


def find_variant(engine: Engine, variant: str, sweep: str | None = None) -> dict[str, Any]:
    """Finds one variant of a sweep.

    Args:
        engine: A database.
        variant: Its label, or the start of its key or of its artifact's sha256 (at least 4 digits).
        sweep: Name or start of the key; None for the latest.

    Returns:
        Its row of the view `leaderboard`.

    Raises:
        UserMistake: If there is no such sweep, or not one such variant; the message names near matches.
    """
    rows = sorted(_of_sweep(engine, views.leaderboard, sweep), key=lambda row: row["position"])
    found = [row for row in rows if row["variant"] == variant]
    if not found and len(variant) >= _SHORTEST_PREFIX:
        found = [row for row in rows if row["variant_key"].startswith(variant)]
        found = found or [row for row in rows if (row["artifact_sha256"] or "").startswith(variant)]
    if len(found) == 1:
        return found[0]
    if found:
        labels = ", ".join(row["variant"] for row in found)
        raise UserMistake(f"{variant!r} stands for {len(found)} variants; choices: {labels}")
    name = find_sweep(engine, sweep)["sweep"]
    near = choices(variant, [row["variant"] for row in rows])
    raise UserMistake(f"the sweep {name} has no variant {variant!r}; {near}")


def show(engine: Engine, variant: str, sweep: str | None = None) -> dict[str, Any]:
    """Collects everything that is known of one variant.

    Args:
        engine: A database.
        variant: See `find_variant`.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Its row of the leaderboard; all 12 statistics; detector, dataset, request and build time; of a verdict also
        `verdict_all_images`, `verdict_level`, `inferred` (images) and `decided_at`; of a confirmation `confirm_dataset`
        and the reference scorer that gave the same statistics, `confirm_reference_scorer`; `noisy`, what was
        wrong while the latency was measured; ratios to the sweep's reference, such as `load_ratio`, None where a side
        is unknown and, but for sizes, where the two come from different hosts; and what is nested in the tables, with
        dots in the names: `mac_share.int8`, `operators.CONV_2D`, `host.cpu`, `conditions.load`,
        `loss_interval.level`, `audit.granularity`, ... Where layers differ in their arithmetic, `layer_count.int8` is
        the number of layers in it, and `layers.float32` are their names, for all but the commonest. Of a training
        `training.trainer`, `training.recipe.batch_size`, `training.stopped_because`, ..., and in `learning_curve.step`,
        `learning_curve.held_out_loss`, ... what `learning_curve` lists, joined by commas.

    Raises:
        UserMistake: If there is no such sweep or variant.
    """
    found = find_variant(engine, variant, sweep)
    sweep_row = find_sweep(engine, found["sweep_key"])
    listed, confirmation = schema.sweep_variants, schema.accuracies.alias("confirmation")
    query = (
        select(
            listed.c.request_key,
            listed.c.accuracy_key,
            listed.c.settled_at,
            schema.artifact_requests.c.build_seconds,
            schema.artifact_requests.c.versions,
            *(getattr(schema.accuracies.c, name) for name in schema.STATISTICS[6:]),
            schema.accuracies.c.settings.label("evaluation"),
            schema.latencies.c.pairs.label("latency_pairs"),
            schema.latencies.c.rounds.label("latency_rounds"),
            schema.latencies.c.noisy,
            schema.latencies.c.settings.label("measurement"),
            schema.latencies.c.conditions,
            schema.latencies.c.executed_mac_share,
            schema.hosts.c.properties.label("machine"),
            schema.artifacts.c.audit,
            schema.verdicts.c.all_images.label("verdict_all_images"),
            schema.verdicts.c.level.label("verdict_level"),
            schema.verdicts.c.inferred,
            schema.verdicts.c.decided_at,
            schema.datasets.c.name.label("confirm_dataset"),
            confirmation.c.confirmed_by.label("confirm_reference_scorer"),
        )
        .outerjoin(schema.artifact_requests, schema.artifact_requests.c.key == listed.c.request_key)
        .outerjoin(schema.artifacts, schema.artifacts.c.sha256 == listed.c.artifact_sha256)
        .outerjoin(schema.accuracies, schema.accuracies.c.key == listed.c.accuracy_key)
        .outerjoin(schema.latencies, schema.latencies.c.key == listed.c.latency_key)
        .outerjoin(schema.hosts, schema.hosts.c.fingerprint == schema.latencies.c.host_fingerprint)
        .outerjoin(
            schema.verdicts,
            (schema.verdicts.c.sweep_key == listed.c.sweep_key)
            & (schema.verdicts.c.variant_key == listed.c.variant_key),
        )
        .outerjoin(confirmation, confirmation.c.key == listed.c.confirm_accuracy_key)
        .outerjoin(schema.datasets, schema.datasets.c.fingerprint == confirmation.c.dataset_fingerprint)
        .where(listed.c.sweep_key == found["sweep_key"], listed.c.variant_key == found["variant_key"])
    )
    (row,) = rows_of(engine, query)
    for name in schema.STATISTICS[6:]:
        row[name] = None if row[name] == -1 else row[name]
    row["noisy"] = "; ".join(row["noisy"] or ())
    audit = row.pop("audit") or {}
    row["audit"] = {name: audit.pop(name) for name in _AXES_IN_AUDIT if name in audit}
    row |= audit
    row |= _arithmetic(row.pop("layers", {})) | _interval(engine, found) | _training(engine, found)
    named = ("detector", "detector_sha256", "dataset", "dataset_fingerprint", "artifacts_url")
    to_reference = _ratios_to_reference(engine, found)
    return flat({**found, **to_reference, **{name: sweep_row[name] for name in named}, **row})


def profile(engine: Engine, variant: str, sweep: str | None = None) -> Rows:
    """Lists where the time of one variant goes, in the order of execution.

    Args:
        engine: A database.
        variant: See `find_variant`.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Rows of the view `operators`.

    Raises:
        UserMistake: If there is no such sweep or variant, or no profile of it is stored.
    """
    header = profile_header(engine, variant, sweep)
    view = views.operators
    keys = (view.c.sweep_key == header["sweep_key"], view.c.variant_key == header["variant_key"])
    return rows_of(engine, select(view).where(*keys).order_by(view.c.position))


def profile_header(engine: Engine, variant: str, sweep: str | None = None) -> dict[str, Any]:
    """Tells what a variant's profile is of.

    Args:
        engine: A database.
        variant: See `find_variant`.
        sweep: Name or start of the key; None for the latest.

    Returns:
        `sweep`, `sweep_key`, `variant`, `variant_key`, `host` (its fingerprint), `cpu` (None if it is not known),
        `total_ms`, `repeats`, `method`, `fallback_share`, `conversion_share`, `created_at`.

    Raises:
        UserMistake: If there is no such sweep or variant, or no profile of it is stored.
    """
    found = find_variant(engine, variant, sweep)
    query = select(schema.profiles).where(schema.profiles.c.key == found["latency_key"])
    rows = rows_of(engine, query)
    if not rows:
        place = f"--db {name_of(engine)}" + ("" if sweep is None else f" --sweep {sweep}")
        raise UserMistake(f"{found['variant']} has no profile; run: quantsweep profile {found['variant']} {place}")
    named = ("sweep", "sweep_key", "variant", "variant_key", "host")
    header = {**{name: found[name] for name in named}, "cpu": _cpu_of(engine, found["host"]), **rows[0]}
    del header["key"]
    return header


def layers(engine: Engine, detector: str | None = None, scheme: str | None = None) -> Rows:
    """Lists what quantizing one layer alone does, the most sensitive layer first.

    Of the measurements of one scheme on one detector, the latest that measured AP is listed, or else the latest.

    Args:
        engine: A database.
        detector: Name, or start of the sha256 (at least 4 digits); None for all.
        scheme: Identifier such as `static_int4`; None for all.

    Returns:
        Rows of the view `layer_losses`: detector by detector, scheme by scheme, by rank. Empty if nothing was measured.

    Raises:
        UserMistake: If there is no such detector or scheme among those that were measured.
    """
    rows = rows_of(engine, select(views.layer_losses))
    if not rows:
        return []
    if detector is not None:
        rows = [row for row in rows if _is_detector(row, detector)] or _unmeasured("detector", detector, rows)
    if scheme is not None:
        rows = [row for row in rows if row["scheme"] == scheme] or _unmeasured("scheme", scheme, rows)
    best: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        best[_subject(row)] = max(_merit(row), best.get(_subject(row), ()))
    shown = [row for row in rows if _merit(row) == best[_subject(row)]]
    return sorted(shown, key=lambda row: (row["detector"], *map(str, _subject(row)), row["rank"]))


def _subject(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a measurement of sensitivity is about."""
    return row["detector_sha256"], row["scheme"], row["toolchain"], *(row[axis] for axis in schema.AXES)


def _merit(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes one measurement preferred to another of the same subject."""
    return row["images"] is not None, row["created_at"], row["sensitivity_key"]


def _is_detector(row: Mapping[str, Any], detector: str) -> bool:
    named = len(detector) >= _SHORTEST_PREFIX and row["detector_sha256"].startswith(detector)
    return row["detector"] == detector or named


def _unmeasured(what: str, name: str, rows: Rows) -> Rows:
    raise UserMistake(f"no sensitivity of the {what} {name!r}; {choices(name, [row[what] for row in rows])}")


def detections_sha256_of(engine: Engine, variant: str, sweep: str | None = None) -> str:
    """Finds the detections that a variant's accuracy was computed from.

    Args:
        engine: A database.
        variant: See `find_variant`.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Content hash of the detections' file in artifact storage.

    Raises:
        UserMistake: If there is no such sweep or variant, or the variant has no accuracy.
    """
    row = find_variant(engine, variant, sweep)
    if row["detections_sha256"] is None:
        why = row["failure_message"] or _why_stopped(row) or f"its status is {row['status']}"
        raise UserMistake(f"{row['variant']} has no detections: {why}")
    return str(row["detections_sha256"])


def _why_stopped(row: Mapping[str, Any]) -> str | None:
    if row["status"] != "stopped":
        return None
    return f"it was not scored on every image: {row['verdict'] or row['status']}, {row['verdict_because'] or ''}"


def sql(engine: Engine, query: str) -> Rows:
    """Runs one statement of the user's.

    Args:
        engine: A database opened with `read_only`.
        query: Any SQL that only reads.

    Returns:
        The rows, by column name.

    Raises:
        UserMistake: If the statement is wrong, writes, or returns no rows.
    """
    try:
        with engine.connect() as connection:
            result = connection.execution_options(no_parameters=True).exec_driver_sql(query)
            return [plain_row(row) for row in result]
    except ResourceClosedError as error:
        raise UserMistake("the statement returns no rows; name a SELECT") from error
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise UserMistake(f"the database refuses the statement: {reason}") from error


def _of_sweep(engine: Engine, view: Table, sweep: str | None) -> Rows:
    key = find_sweep(engine, sweep)["sweep_key"]
    return rows_of(engine, select(view).where(view.c.sweep_key == key))


def _ratios_to_reference(engine: Engine, found: Mapping[str, Any]) -> dict[str, float | None]:
    view = views.leaderboard
    query = select(view).where(view.c.sweep_key == found["sweep_key"], view.c.is_reference)
    (reference,) = rows_of(engine, query)
    return ratios(found, reference)


def host_of(engine: Engine, fingerprint: str) -> dict[str, Any]:
    """Describes a machine that latencies were measured on.

    Args:
        engine: A database.
        fingerprint: Of the machine; it is stored.

    Returns:
        Its properties, as `tasks.host.this_host` had them.
    """
    (row,) = rows_of(engine, select(schema.hosts.c.properties).where(schema.hosts.c.fingerprint == fingerprint))
    return dict(row["properties"])


def _training(engine: Engine, found: Mapping[str, Any]) -> dict[str, Any]:
    """Finds how a variant was trained, but for what the leaderboard and the curve tell."""
    if found["training_key"] is None:
        return {}
    told = {"key", "detector_sha256", "status", "step", "best_step", "seconds", "core_seconds"}
    columns = [column for column in schema.trainings.c if column.name not in told]
    (training,) = rows_of(engine, select(*columns).where(schema.trainings.c.key == found["training_key"]))
    curve = learning_curve(engine, found["training_key"])
    points = {name: [point[name] for point in curve] for name, *_ in schema.CURVE}
    return {"training": training, "learning_curve": points}


def _cpu_of(engine: Engine, host: str) -> str | None:
    cpu = host_of(engine, host).get("cpu")
    return None if cpu is None else str(cpu)


def _arithmetic(layers: Mapping[str, str]) -> dict[str, Any]:
    """Sums up the arithmetic of each layer, if they differ."""
    counts = Counter(layers.values())
    if len(counts) < 2:
        return {}
    (commonest, _), *_others = counts.most_common()
    names = {kind: [name for name, found in layers.items() if found == kind] for kind in counts if kind != commonest}
    return {"layer_count": dict(counts), "layers": names}


def _interval(engine: Engine, found: Mapping[str, Any]) -> dict[str, Any]:
    """Finds how the interval of a variant's loss was computed."""
    if found["ap_loss_low"] is None:
        return {}
    listed, intervals = schema.sweep_variants, schema.loss_intervals
    accuracy = select(listed.c.accuracy_key).where(
        listed.c.sweep_key == found["sweep_key"], listed.c.variant_key == found["variant_key"]
    )
    reference = (
        select(listed.c.accuracy_key)
        .join(schema.sweeps, schema.sweeps.c.key == listed.c.sweep_key)
        .where(schema.sweeps.c.key == found["sweep_key"], listed.c.variant_key == schema.sweeps.c.reference_variant_key)
    )
    query = (
        select(*(intervals.c[name] for name in ("level", "resamples", "seed", "images", "method")))
        .where(
            intervals.c.accuracy_key == accuracy.scalar_subquery(),
            intervals.c.reference_accuracy_key == reference.scalar_subquery(),
        )
        .order_by(intervals.c.created_at.desc(), intervals.c.key)
        .limit(1)
    )
    return {"loss_interval": rows_of(engine, query)[0]}
