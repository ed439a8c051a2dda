"""Profiles of what torch runs: packages by oneDNN's own account of its kernels, modules by torch's profiler."""

import numpy as np

from tasks.profiles.torch_module import profile_module
from tasks.profiles.torch_package import profile_package
from tasks.runtimes.torch import is_package
from tasks.types import Profile, RuntimeSettings


def profile(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Times the operators of an artifact: see `Runtime.profile`.

    Args:
        data: Content of a .pt2 file, or of a .torch.safetensors file.
        settings: Number of threads.
        pixels: (N, S, S, 3) uint8 RGB, at least one image.
        seconds: Time to spend, about.

    Returns:
        The profile. Its last operator is the time that no other one explains.

    Raises:
        ArtifactUnreadable: If the content is neither, or a package for another CPU.
        InferenceFailed: If torch fails.
    """
    return (profile_package if is_package(data) else profile_module)(data, settings, pixels, seconds)
