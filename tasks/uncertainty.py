"""Uncertainty: how far the AP loss of a variant could move if other images had been drawn."""

from functools import lru_cache

import numpy as np

from tasks.average_precision import average_precisions, image_counts
from tasks.errors import ScoringFailed
from tasks.matches import Matches
from tasks.types import LossInterval


def loss_interval(
    reference: Matches,
    variant: Matches,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    *,
    metric: str = "AP",
    is_relative: bool = False,
    weights: np.ndarray | None = None,
) -> LossInterval:
    """Says how sure the AP loss is, by the paired bootstrap over images.

    Each resample draws as many images as there are, with replacement, and scores both detectors on them, so that what
    makes images hard for both cancels. The interval is the percentile interval of Efron and Tibshirani, "An
    Introduction to the Bootstrap" (1993), chapter 13. Resamples without any object are left out.

    Args:
        reference: What the reference found.
        variant: What the variant found on the same images.
        resamples: Number of resamples, at least 1. With fewer than 1000 the ends of the interval are visibly random.
        seed: Seed of the draws; equal seeds draw the same images.
        level: Nominal coverage, in (0, 1).
        metric: `AP`, `AP50` or `AP75`.
        is_relative: Whether to tell the loss as a share of the reference's value; resamples where that is 0 are left
            out, too.
        weights: (N,) integers, at least 0: how often each image is in the set; all 1 if None. Each resample draws
            `weights.sum()` images. The result is that of a set in which each image is written down that many times.

    Returns:
        The loss on all images and its interval.

    Raises:
        ScoringFailed: If the two were not matched on the same images and objects, there is no object at all, or the
            loss is relative to a value of 0.
        ValueError: If `resamples`, `level` or `weights` is out of range, or there is no such metric.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples is {resamples} and level {level}; they must be at least 1 and in (0, 1)")
    losses = resampled_losses(
        reference, variant, resamples, seed, metric=metric, is_relative=is_relative, weights=weights
    )
    images = len(reference.image_ids) if weights is None else int(np.sum(weights))
    loss, resampled = float(losses[0]), losses[1:]
    present = resampled[~np.isnan(resampled)]
    tail = (1 - level) / 2
    # Where every resample missed the few images that hold objects, the loss itself is all there is to say.
    low, high = np.quantile(present, [tail, 1 - tail]) if present.size else (loss, loss)
    return LossInterval(loss, float(low), float(high), level, resamples, seed, images)


def resampled_losses(
    reference: Matches,
    variant: Matches,
    resamples: int,
    seed: int = 0,
    *,
    metric: str = "AP",
    is_relative: bool = False,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Computes the loss on all images and on each resample; see `loss_interval`, whose ends are their quantiles.

    Args:
        reference: What the reference found.
        variant: What the variant found on the same images.
        resamples: Number of resamples.
        seed: Seed of the draws.
        metric: `AP`, `AP50` or `AP75`.
        is_relative: Whether losses are shares of the reference's value.
        weights: (N,) integers, at least 0: how often each image is in the set; all 1 if None.

    Returns:
        (1 + resamples,) losses; NaN for resamples without any object, or with a reference's value of 0 if they are
        shares of it.

    Raises:
        ScoringFailed: If the two were not matched on the same images and objects, there is no object at all, or the
            loss is relative to a value of 0.
        ValueError: If `weights` is out of range, or there is no such metric.
    """
    _check_same_images(reference, variant)
    counts = image_counts(reference, weights).tobytes()
    before = _remembered(reference, counts, resamples, seed, metric)
    losses = before - average_precisions(variant, _drawn(counts, resamples, seed), metric)
    if np.isnan(losses[0]):
        raise ScoringFailed("there is no object on these images, so there is no AP to lose")
    if not is_relative:
        return losses
    if not before[0]:
        raise ScoringFailed(f"the reference's {metric} is 0 on these images, so nothing is a share of it")
    return np.divide(losses, before, out=np.full(len(losses), np.nan), where=before > 0)


def _check_same_images(reference: Matches, variant: Matches) -> None:
    for name in ("image_ids", "category_ids", "object_starts", "object_images"):
        if not np.array_equal(getattr(reference, name), getattr(variant, name)):
            raise ScoringFailed(f"reference and variant were not matched on the same images: their {name} differ")


@lru_cache(maxsize=8)
def _remembered(matches: Matches, counts: bytes, resamples: int, seed: int, metric: str) -> np.ndarray:
    """AP on all images, then in each resample; remembered, since many variants are compared with one reference."""
    return average_precisions(matches, _drawn(counts, resamples, seed), metric)


@lru_cache(maxsize=8)
def _drawn(counts: bytes, resamples: int, seed: int) -> np.ndarray:
    """How often each image is there, then how often it is drawn in each resample: (1 + resamples, N) int32.

    Args:
        counts: int32, how often each of the N images is there.
        resamples: Number of resamples.
        seed: Seed of the draws.
    """
    present = np.frombuffer(counts, np.int32)
    owners = np.repeat(np.arange(len(present)), present)
    random = np.random.default_rng(seed)
    weights = np.zeros((1 + resamples, len(present)), np.int32)
    weights[0] = present
    for row in weights[1:] if len(owners) else ():
        row[:] = np.bincount(owners[random.integers(len(owners), size=len(owners))], minlength=len(present))
    return weights
