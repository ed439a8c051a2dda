"""Conditions: what else the machine did while something was timed, and whether that spoils the times."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STATES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_PROBE_SECONDS = 0.1

MOST_PREEMPTED = 0.02
"""Share of the timed blocks without a CPU, above which a run is noisy."""

MOST_STEAL = 0.02
"""Share of the bound CPUs' time that the hypervisor gave to others, above which a run is noisy."""

MOST_OTHERS = 0.10
"""Share of all CPUs' time that went to other processes, above which a run is noisy."""

MOST_RESTING = 0.05
"""CPUs that a contestant may keep busy while the other one is timed: more is a pool of threads that spins."""


@dataclass(frozen=True)
class Counters:
    """CPU time by state of each CPU since the machine started."""

    ticks: dict[int, dict[str, int]]
    """Ticks by state by CPU; empty where the system does not tell."""

    at_s: float
    """When, by a clock of its own."""

    @classmethod
    def now(cls) -> "Counters":
        """Reads them."""
        source = Path("/proc/stat")
        lines = source.read_text().splitlines() if source.exists() else []
        rows = (line.split() for line in lines if line.startswith("cpu") and line[3].isdigit())
        ticks = {int(row[0][3:]): dict(zip(_STATES, map(int, row[1:]), strict=False)) for row in rows}
        return cls(ticks, time.perf_counter())

    def since(self, before: "Counters", cpus: list[int] | None = None) -> dict[str, float]:
        """Sums up what happened since then.

        Args:
            before: Earlier counters.
            cpus: Only these; None for all.

        Returns:
            Seconds by state, and `total` and `busy` ones (neither idle, nor waiting, nor stolen).
        """
        chosen = [cpu for cpu in self.ticks if cpus is None or cpu in cpus]
        per_tick = 1 / os.sysconf("SC_CLK_TCK")
        spent = {
            state: sum(self.ticks[cpu].get(state, 0) - before.ticks[cpu].get(state, 0) for cpu in chosen) * per_tick
            for state in _STATES
        }
        total = sum(spent.values())
        return {**spent, "total": total, "busy": total - spent["idle"] - spent["iowait"] - spent["steal"]}


def idlest_cpus(count: int) -> list[int]:
    """Looks for CPUs that nothing else uses.

    Args:
        count: How many are wanted.

    Returns:
        Numbers of that many CPUs that this process may use, the least busy ones of a short while; of equals the last
        ones, since the first serves most interrupts. All if there are not more; none where the system does not tell.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) <= count:
        return allowed
    before = Counters.now()
    time.sleep(_PROBE_SECONDS)
    after = Counters.now()
    busy = {cpu: after.since(before, [cpu])["busy"] if cpu in after.ticks else 0.0 for cpu in allowed}
    return sorted(sorted(allowed, key=lambda cpu: (round(busy[cpu], 2), -cpu))[:count])


def frequency_mhz(cpu: int) -> float | None:
    """Returns the clock frequency of a CPU, where the system tells."""
    source = Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq")
    return int(source.read_text()) / 1e3 if source.exists() else None


def complaints(conditions: dict[str, float]) -> tuple[str, ...]:
    """Says what spoils a run.

    Args:
        conditions: Of the run, as `tasks.latency.duel` gathers them.

    Returns:
        One line for each condition that is worse than this module's limits; none for a good run.
    """
    limits = (
        ("preempted_share", MOST_PREEMPTED, "the timed process was without a CPU for {:.0%} of the time"),
        ("steal_share", MOST_STEAL, "the hypervisor took {:.0%} of the CPU time"),
        ("others_busy_share", MOST_OTHERS, "other processes used {:.0%} of the machine"),
        ("resting_cpus", MOST_RESTING, "a waiting pool of threads kept {:.2f} CPUs busy"),
    )
    found = [text.format(conditions[name]) for name, most, text in limits if conditions.get(name, 0.0) > most]
    if conditions.get("bound", 1.0) == 0.0:
        found.append("the process could not be bound to its CPUs")
    return tuple(found)
