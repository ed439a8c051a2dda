"""Being written."""

import numpy as np

from tasks.types import Profile, RuntimeSettings


def profile(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Being written."""
    raise NotImplementedError
