"""Lists of layers as tables: what quantizing each one alone does."""

from orchestrator.cli.output import Column, Row, number_of, text_of


def subject(row: Row) -> str:
    """Says what a block of layers is about."""
    axes = [
        f"{axis} {value}" for axis, value in row.items() if axis in SHOWN_AXES and value not in (None, SHOWN_AXES[axis])
    ]
    scored = "AP was not measured"
    if row["reference_ap"] is not None:
        scored = f"AP {row['reference_ap']:.3f} in float on {row['images']} images of {row['dataset']}"
    return (
        f"{row['detector']}, one layer at a time in {row['scheme']}: {', '.join([row['toolchain'], *axes])}; {scored}"
    )


def _decibels(name: str, heading: str) -> Column:
    return Column(heading, lambda row: "no noise" if row[name] is None else f"{row[name]:.1f}", "right")


LAYERS = (
    number_of("rank", "rank", ".0f"),
    text_of("layer"),
    _decibels("sqnr_db", "SQNR dB"),
    _decibels("sqnr_boxes_db", "boxes dB"),
    _decibels("sqnr_scores_db", "scores dB"),
    number_of("ap_loss", "AP loss", "+.4f"),
    number_of("mac_share", "MACs", ".1%"),
)
"""Columns of a list of layers."""

SHOWN_AXES: dict[str, str | None] = {
    "granularity": None, "symmetry": "asymmetric", "range_estimator": None, "weight_algorithm": "min_max",
    "calibration_images": None, "calibration_seed": None, "transform": "none",
}  # fmt: skip
"""Axes that the title of a list of layers shows, each unless it has this value."""

NO_LAYERS = (
    "no layer has been measured yet. To see what quantizing each layer alone does, add a list of schemes to a spec,\n"
    "like the blocks of `space` but without a runtime, and sweep it:\n\n"
    "    sensitivity:\n"
    "      - {scheme: static_int4}\n\n"
    "A block of `space` with `keep_float: most_sensitive_3` measures its layers, too, without AP."
)
"""What is printed instead of an empty list of layers."""
