"""Range estimators: what range an activation is quantized over, from its statistics."""


def check_estimator(name: str) -> None:
    """Checks the name of a range estimator.

    Args:
        name: Such as `min_max`, `moving_average`, `percentile_99_99`, `mse`, `entropy` or `fixed`.

    Raises:
        ValueError: If there is none of this name; the message names the choices.
    """
    import re

    if name not in ("min_max", "moving_average", "mse", "entropy", "fixed") and not re.fullmatch(
        r"percentile_\d{1,3}(_\d{1,6})?", name
    ):
        raise ValueError(f"range_estimator is {name!r}")
