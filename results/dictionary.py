"""The data dictionary, `docs/schema.md`: written from the schema by `python -m results.dictionary > docs/schema.md`."""

import sys
from collections.abc import Iterator

from sqlalchemy import Column, Table

from results.schema import HEAD, tables
from results.views import views

_INTRODUCTION = f"""# The database, column by column

*Written by `python -m results.dictionary > docs/schema.md` from `results/schema.py` and `results/views.py`; do not
edit. Schema {HEAD}.*

SQLite (default `./quantsweep.db`) and PostgreSQL have the same tables and views. Read the **views**: they are made for
SQL, pandas, Datasette or Grafana. The **tables** are what the store writes, one transaction for each result, every
write an upsert on the primary key.

- Keys are sha256 in hexadecimal. Equal keys are never computed twice, within a sweep or across sweeps.
- AP and AR are in [0, 1]. The tables hold them exactly as the scorer gave them, with -1 where there was nothing to
  score; the views show NULL instead.
- Times are in UTC. SQLite holds them as text, and booleans as 0 and 1.
- A latency ratio compares with others of the same `host` only.
- A failure under a key is a result too. A rerun keeps it if it follows from the request (`unsupported_scheme`,
  `training_failed`, `quantization_failed`, `audit_mismatch`, `inference_failed`, `scoring_failed`) and tries again if
  it may not happen twice (all other reasons). A result stored under the same key outweighs it.
- Each axis of a scheme has a column, NULL where the axis does not exist (`range_estimator` of `float16`). `scheme_json`
  holds the axes that exist. Rows that schema 0001 wrote hold in `scheme_json` only the axes that it knew; their columns
  say what it did, having no choice (`range_estimator` is `min_max`, `transform` is `none`, ...). Their audits have no
  `layers` and no `codebook_size`.
- A latency is measured in rounds. Each starts a process of the reference and one of the variant anew and times them
  in turn, pair by pair: where the loader happens to put code makes one process of an artifact faster than another, so
  the interval is over rounds (Student's, of the mean of the rounds' median log ratios). Latencies that schemas before
  0004 wrote have one round, one process of each, and a bootstrap interval over pairs, which is too narrow.
- `latency_noisy` says that other work disturbed a measurement; `noisy` of `latencies` says how. Such a latency is
  shown, after the others, and is never on the Pareto front. Schemas before 0004 did not look; their rows pass for calm.
- `import_ms`, `load_ms`, `first_inference_ms` and `peak_memory_bytes` are of a cold start: a fresh process that
  imports the runtime, opens the artifact and runs a few images; medians over rounds, of which schema 0003 had one.
  Latencies that schemas before 0003 wrote have only `load_ms`, and theirs is that of a second load in one process,
  which is shorter.
- A profile belongs to a latency, and so to all variants that share it; `operators` takes its time apart.
- `comparisons` holds what `quantsweep results compare A B --measure` timed: two artifacts beside each other, without
  the reference between them.
- `int8_mac_share` is what the artifact's file asks for; `executed_int8_mac_share` is what the runtime makes of it,
  where it tells: the CPU may lack instructions, and a runtime may have no int8 kernel for a layer.
- Variants with `simulated` have weights of a form that no kernel makes use of (clustered, binary): AP, stored and
  compressed bytes are true, the latency is that of the same scheme without the transform.
- `ap_loss_low` and `ap_loss_high` are the latest interval of `loss_intervals` for this accuracy and the reference's.
- Studies (`quantsweep study`) and searches for the best (`quantsweep sweep --find-best`) are rows of `sweeps`, told by
  `kind`; their variants are the whole space, most of them never scored. What was decided about a variant is in
  `verdicts`, and on how many images. A loss there is of the images scored by then, as the budget counts it (a share, if
  the budget is relative): with fewer than all, it is no score, and `ap`, `ap_loss`, `budget_loss` and `feasible` stay
  NULL. The status `stopped` says that a variant was made and timed, and given up before it was scored on every image.
  Of a variant that has to be trained the untrained twin is made and timed first, which has the same structure: without
  an artifact, it was given up before or during its training.
- `confirm_ap` and its loss are of images that no choice was made by: the least of many losses is luckier than it is
  good.
- `trainings` says how far each training is and `training_points` is its learning curve. A training gives float weights
  and ranges of activations, of which many artifacts may be made: by several toolchains, in several sweeps. So variants
  share trainings (`training_key`), and with them their cost: sum it up over distinct keys. `core_seconds` is CPU time
  of the training process, all threads together; work that was lost with a worker is not in it.
- `trained_variants` sets what a training bought beside what it cost. `untrained_ap` is of the untrained twin in the
  same sweep: the variant that has `epochs` 0 and equals it in all axes but those of training. What it gained an hour is
  over the whole training, even if other variants share it. Both views have a training as it is now: one that a study
  ended, and that a later sweep finished, reads finished in the study, too. Training images are none of the `datasets`.
- `held_out_loss` is what the training makes small, on training images that were kept apart: the loss against the float
  detector's answers, the labels, or both, as `distillation_weight` has it. Compare it among trainings of one such
  weight alone. No evaluation image has a part in it. `box_loss` and `score_loss`, against the labels, are NULL where
  the training images have no annotations.
- Optuna's own tables (`studies`, `trials`, ...) may stand beside these; the view `study_trials` does not need them.
- Alembic's revision is in `quantsweep_alembic_version`; `quantsweep db upgrade` brings an older schema to the newest.

A few questions, each of which `quantsweep results sql "..."` answers:

```sql
-- the fastest variant within the budget, for each sweep and host
SELECT sweep, variant, ap_loss, latency_ratio FROM leaderboard one
WHERE feasible AND NOT latency_noisy AND latency_ratio = (SELECT MIN(latency_ratio) FROM leaderboard other
    WHERE other.feasible AND NOT other.latency_noisy AND other.sweep_key = one.sweep_key AND other.host = one.host);
-- categories that static int8 hurts most
SELECT category, AVG(ap_loss) AS loss FROM class_losses WHERE variant LIKE '%static_int8%'
GROUP BY category HAVING AVG(ap_loss) IS NOT NULL ORDER BY loss DESC LIMIT 10;
-- what calibration size and seed are worth
SELECT calibration_images, calibration_seed, ap_loss FROM leaderboard
WHERE scheme = 'static_int8' AND granularity = 'per_channel' AND ap IS NOT NULL
ORDER BY calibration_images, calibration_seed;
-- layers that cost most AP when they alone are quantized
SELECT scheme, layer, rank, sqnr_db, ap_loss FROM layer_losses WHERE ap_loss > 0 ORDER BY ap_loss DESC LIMIT 10;
-- where the time of each variant goes, by kind of operator and kernel
SELECT variant, operator, kernel, arithmetic, SUM(time_ms) AS ms, SUM(time_share) AS share FROM operators
GROUP BY sweep_key, variant, operator, kernel, arithmetic ORDER BY variant, ms DESC;
-- what each study decided, and what that took
SELECT study, verdict, COUNT(*) AS variants, SUM(inferred) AS images FROM study_trials
GROUP BY study_key, study, verdict ORDER BY study, variants DESC, verdict;
-- what trainings bought and cost: mean over seeds
SELECT scheme, granularity, trainer, epochs, learning_rate, COUNT(*) AS seeds, AVG(untrained_ap) AS untrained,
    AVG(ap) AS trained, AVG(ap_gained) AS gained, AVG(core_seconds) AS core_seconds FROM trained_variants
WHERE ap_gained IS NOT NULL GROUP BY scheme, granularity, trainer, epochs, learning_rate ORDER BY gained DESC;
```
"""


def dictionary() -> str:
    """Writes the data dictionary.

    Returns:
        A Markdown page: every view, then every table, with each column's type and meaning.
    """
    sections = [_INTRODUCTION, "\n## Views\n"]
    sections += [_section(view) for view in views.tables.values()]
    sections += ["\n## Tables\n", *(_section(table) for table in tables.tables.values())]
    return "".join(sections)


def _section(table: Table) -> str:
    return f"\n### {table.name}\n\n{table.comment}.\n\n" + "\n".join(_lines(table)) + "\n"


def _lines(table: Table) -> Iterator[str]:
    yield "| column | type | meaning |"
    yield "|---|---|---|"
    for column in table.c:
        yield f"| `{column.name}` | {_type(column)} | {str(column.comment).replace('|', '/')} |"


def _type(column: Column[object]) -> str:
    kind = getattr(column.type, "impl", column.type)
    words = [str(kind).lower()]
    if column.primary_key:
        words.append("key")
    words += [f"refers to `{key.target_fullname}`" for key in column.foreign_keys]
    if column.table.metadata is tables and column.nullable:
        words.append("or NULL")
    return ", ".join(words)


if __name__ == "__main__":
    sys.stdout.write(dictionary())
