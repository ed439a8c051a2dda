"""The machine that this process runs on, as far as it decides about latency."""

import os
import platform
from pathlib import Path

import psutil

from tasks.runtimes.base import runtimes
from tasks.types import Host

ISA_FLAGS = (
    "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
"""CPU features that kernels of inference libraries choose by, as Linux names them (the last six are ARM's)."""


def this_host() -> Host:
    """Describes this machine; the same from one run to the next, and the same for machines of one kind.

    Returns:
        CPU model and features, cores, memory, kernel, frequency governor, the CPU limit of the container, versions
        of Python and of each installed runtime. What the system does not tell is None.
    """
    processor = _processor()
    flags = set((processor.get("flags") or processor.get("Features") or "").split())
    return Host(
        {
            "cpu": processor.get("model name") or processor.get("CPU part") or platform.processor() or None,
            "architecture": platform.machine(),
            "isa": [flag for flag in ISA_FLAGS if flag in flags],
            "cores": psutil.cpu_count(logical=False),
            "logical_cpus": psutil.cpu_count(logical=True),
            "usable_cpus": _usable_cpus(),
            "container_cpus": _container_cpus(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "system": f"{platform.system()} {platform.release()}",
            "governor": _line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            "python": platform.python_version(),
            "runtimes": {runtime.name: runtime.version() for runtime in runtimes() if runtime.is_installed},
        }
    )


def _processor() -> dict[str, str]:
    """Returns the fields of the first processor in /proc/cpuinfo."""
    source = Path("/proc/cpuinfo")
    if not source.exists():
        return {}
    first = source.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _usable_cpus() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _container_cpus() -> float | None:
    """Reads the quota of control groups, version 2, in CPUs."""
    quota, _, period = (_line(Path("/sys/fs/cgroup/cpu.max")) or "max").partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _line(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None
