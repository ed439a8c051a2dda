"""`quantsweep export`: a variant's model file, where it comes from, and a runnable example."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.results import DEFAULT_DATABASE, Database, Sweep, VariantName

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from results.subject import Subject

_STATISTICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def export(
    variant: VariantName,
    out: Annotated[Path, typer.Option("--out", help="Folder to make; it may be there if it is empty.")],
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Folder or URL of the artifacts; where the sweep put them if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object: the folder and the model in it.")] = False,
) -> None:
    """Write a variant's model file with all that is needed to use it and to trust it.

    The folder gets the model file, its bytes checked against the hash that was
    measured; `provenance.json`: detector, scheme with all axes, versions of the
    toolchain, calibration, scores with their interval, latency and the machine,
    budget; `detect.py`, which detects objects in images; and `README.md`, which
    says what goes in and what comes out.
    """
    from orchestrator.cli.output import print_json, print_line
    from results.connect import open_database
    from results.subject import find_subject
    from tasks.errors import ArtifactUnreadable, UserMistake
    from tasks.storage import ArtifactStorage

    _refuse_occupied(out)
    engine = open_database(db, read_only=True)
    subject = find_subject(engine, variant, sweep)
    artifact = subject.artifact
    try:
        data = ArtifactStorage(artifacts or subject.artifacts_url).get(artifact.sha256, artifact.format)
    except ArtifactUnreadable as error:
        raise UserMistake(f"{error}; `--artifacts` names another place") from error
    model = f"model.{artifact.format}"
    made = _provenance(engine, subject, sweep, model)
    _write_folder(out, {model: data, **_texts(made)})
    if as_json:
        print_json({"variant": subject.label, "folder": str(out), "model": model, "sha256": artifact.sha256})
    else:
        print_line(
            f"{subject.label}: {len(data):,} bytes written to {out / model}; {out / 'README.md'} says how to use"
        )


def _refuse_occupied(out: Path) -> None:
    from tasks.errors import UserMistake

    if out.exists() and not out.is_dir():
        raise UserMistake(f"--out {out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserMistake(f"--out {out} is a folder that holds something; name another one")
    if not out.resolve().parent.is_dir():
        raise UserMistake(f"--out {out}: the folder {out.resolve().parent} does not exist")


def _write_folder(out: Path, contents: dict[str, bytes]) -> None:
    """Writes a folder that is there whole or not at all."""
    import shutil
    import uuid

    from tasks.errors import UserMistake

    unfinished = out.resolve().with_name(f".{out.resolve().name}.{uuid.uuid4().hex}.part")
    try:
        unfinished.mkdir()
        for name, data in contents.items():
            (unfinished / name).write_bytes(data)
        # Takes the place of an empty folder, and fails if somebody put something into it meanwhile.
        unfinished.replace(out.resolve())
    except OSError as error:
        raise UserMistake(f"--out {out} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _provenance(engine: "Engine", subject: "Subject", sweep: str | None, model: str) -> dict[str, Any]:
    from dataclasses import asdict
    from importlib.metadata import version

    from results import queries
    from tasks.runtimes.base import runtime_of
    from tasks.types import Postprocessing

    found = queries.show(engine, subject.label, sweep)
    home = queries.find_sweep(engine, found["sweep_key"])
    detector, sweep_provenance = _stored(engine, found)
    runtime = runtime_of(subject.settings.runtime)
    defaults = asdict(Postprocessing())
    is_scored = found["ap"] is not None
    return {
        "quantsweep": version("quantsweep"),
        "variant": subject.label,
        "model": {"file": model, **asdict(subject.artifact)},
        "runtime": {
            "name": subject.settings.runtime,
            "threads": subject.settings.threads,
            "options": dict(subject.settings.options),
            "version": found.get("evaluation.runtime_version") or found.get("measurement.runtime_version"),
            "extra": runtime.extra,
        },
        "detector": detector,
        "scheme": {"name": found["scheme"], "toolchain": found["toolchain"], **_axes(found)},
        "toolchain_versions": _beneath(found, "versions"),
        "calibration": {
            "images": found["calibration_images"],
            "seed": found["calibration_seed"],
            "dataset_fingerprint": sweep_provenance.get("calibration") if found["calibration_images"] else None,
        },
        "training": _beneath(found, "training") or None,
        "postprocessing": {name: found.get(f"evaluation.postprocessing.{name}", defaults[name]) for name in defaults},
        "accuracy": {
            "dataset": found["dataset"],
            "dataset_fingerprint": found["dataset_fingerprint"],
            "images": found["images"],
            **{name: found[name] for name in _STATISTICS},
            **{f"{name}_loss": found[f"{name}_loss"] for name in _STATISTICS},
            "ap_loss_low": found["ap_loss_low"],
            "ap_loss_high": found["ap_loss_high"],
            "interval": _beneath(found, "loss_interval"),
            "scorer": found["scorer"],
            "confirmed_by": found["confirmed_by"],
            "on_confirmation_images": {
                name.removeprefix("confirm_"): value for name, value in found.items() if name.startswith("confirm_")
            }
            if found["confirm_images"] is not None
            else None,
        }
        if is_scored
        else None,
        "latency": {
            **{name: value for name, value in found.items() if name.startswith(("latency_", "own_latency_"))},
            "reference_ms_p50": found["reference_ms_p50"],
            "load_ms": found["load_ms"],
            "peak_memory_bytes": found["peak_memory_bytes"],
            "noisy": found["noisy"],
            "host": _beneath(found, "machine"),
        }
        if found["latency_ratio"] is not None
        else None,
        "budget": {
            "metric": home["budget_metric"],
            "max_loss": home["budget_max_loss"],
            "is_relative": home["budget_relative"],
            "loss": found["budget_loss"],
            "feasible": found["feasible"],
        }
        if home["budget_metric"]
        else None,
        "sweep": {"name": found["sweep"], "key": found["sweep_key"], "verdict": found.get("verdict")},
    }


def _stored(engine: "Engine", found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the detector's architecture and what the sweep depended on."""
    from sqlalchemy import select

    from results import schema
    from results.reading import rows_of

    table, datasets, sweeps = schema.detectors, schema.datasets, schema.sweeps
    query = (
        select(table.c.name, table.c.spec, datasets.c.categories, sweeps.c.provenance)
        .join(sweeps, sweeps.c.detector_sha256 == table.c.sha256)
        .join(datasets, datasets.c.fingerprint == sweeps.c.dataset_fingerprint)
        .where(sweeps.c.key == found["sweep_key"])
    )
    (row,) = rows_of(engine, query)
    architecture = _untyped(row["spec"])
    named = zip(architecture["class_ids"], architecture["class_names"], strict=False)
    categories = {str(number): name for number, name in named if number} or row["categories"]
    detector = {
        "name": row["name"],
        "sha256": found["detector_sha256"],
        "categories": categories,
        "architecture": architecture,
    }
    return detector, row["provenance"]


def _untyped(value: Any) -> Any:
    """Leaves out the names of dataclasses, which keys hold."""
    if isinstance(value, dict):
        return {name: _untyped(item) for name, item in value.items() if name != "type"}
    return value


def _axes(found: dict[str, Any]) -> dict[str, Any]:
    from results.schema import AXES

    return {name: found[name] for name in AXES if found[name] is not None}


def _beneath(found: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Collects what `results.queries.show` spread over names with dots."""
    return {
        name.removeprefix(f"{prefix}."): value for name, value in found.items() if name.startswith(f"{prefix}.")
    }  # fmt: skip


def _texts(made: dict[str, Any]) -> dict[str, bytes]:
    import json
    from importlib.resources import files

    from orchestrator.cli.output import plain

    return {
        "provenance.json": (json.dumps(plain(made), indent=2, allow_nan=False) + "\n").encode(),
        "detect.py": files("orchestrator").joinpath("examples/detect.py").read_bytes(),
        "README.md": _readme(made).encode(),
    }


def _readme(made: dict[str, Any]) -> str:
    runtime, model, settings = made["runtime"], made["model"], made["postprocessing"]
    extra = f"[{runtime['extra']}]" if runtime["extra"] else ""
    size, classes = _dimensions(made)
    return f"""# {made["variant"]}

`{model["file"]}` is the detector `{made["detector"]["name"]}` as `{made["scheme"]["name"]}`, made by
`{made["scheme"]["toolchain"]}`, for {runtime["version"]}: {model["size_bytes"]:,} bytes, sha256
`{model["sha256"]}`.

{_scores(made)}

    pip install 'quantsweep{extra}=={made["quantsweep"]}'
    python detect.py IMAGE

**In**: the whole image, one at a time, RGB, resized to {size} x {size} pixels (bilinear with antialias, aspect ratio
not kept). The pixels, 0 to 255, are scaled to [-1, 1] (x / 127.5 - 1) and given the element type of the
model's input, `{model["audit"]["input_type"]}`.

**Out**: encoded boxes (1, A, 4) [ty, tx, th, tw] and scores (1, A, {classes}) in [0, 1], a row for each of A
anchors. Column c of the scores is category `detector.architecture.class_ids[c]` of `provenance.json`; 0 is
the background.

**Decoding**: an anchor [ycenter, xcenter, height, width] (`tasks.detector.anchors.anchors`) and its row give
the box ycenter + ty / 10 * height, xcenter + tx / 10 * width, height * exp(th / 5), width * exp(tw / 5), in
shares of the image. Then non-maximum suppression class by class: scores above {settings["score_threshold"]:g}, IoU
{settings["iou_threshold"]:g}, at most {settings["max_per_class"]} boxes of a class and {settings["max_per_image"]} of \
an image.

`detect.py` does all of that with quantsweep's own functions, those that the scores were measured with.
`provenance.json` says what the model was made from, by which versions, and what was measured where.
"""


def _dimensions(made: dict[str, Any]) -> tuple[int, int]:
    architecture = made["detector"]["architecture"]
    return architecture["image_size"], len(architecture["class_ids"])


def _scores(made: dict[str, Any]) -> str:
    accuracy, latency, threads = made["accuracy"], made["latency"], made["runtime"]["threads"]
    lines = ["It was not scored on every image: nothing says how well it detects."]
    if accuracy is not None:
        loss = "there was no float32 to compare it with"
        if accuracy["ap_loss"] is not None:
            loss = f"{accuracy['ap_loss']:+.4f} lost to LiteRT float32"
        if accuracy["ap_loss_low"] is not None:
            loss += f", 95 % interval {accuracy['ap_loss_low']:+.4f} to {accuracy['ap_loss_high']:+.4f}"
        lines = [f"AP {accuracy['ap']:.4f} on the {accuracy['images']} images of {accuracy['dataset']} ({loss})."]
    if latency is not None:
        how = f"with {threads} thread{'s' if threads > 1 else ''} on {latency['host'].get('cpu')}"
        ratio = f"{latency['latency_ratio']:.3f} of the time of LiteRT float32"
        lines.append(f"{latency['latency_ms_p50']:.2f} ms an image {how}, {ratio}.")
    return "\n".join(lines)
