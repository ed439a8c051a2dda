"""Forecasts: what a plan would do, counted before anything runs."""

from collections import Counter
from dataclasses import dataclass

from orchestrator.artifacts import ranked_by
from orchestrator.plan import Plan
from orchestrator.search.rungs import rungs
from results.store import Store
from tasks.detector.loss import described
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.quantize.artifact import observed_by, source_of
from tasks.quantize.schemes import Qat, Scheme
from tasks.types import Artifact, Failure


@dataclass(frozen=True)
class Forecast:
    """Counts of a plan's work, and what of it is known already."""

    variants: int
    """Distinct variants."""

    repeats: dict[str, int]
    """How often the spec asks for a variant again, by label; see `Space.repeats`."""

    variants_by_scheme: dict[str, int]
    """Distinct variants by identifier of the scheme."""

    artifacts: int
    """Distinct requests for artifacts of these variants."""

    sources: int
    """Float32 builds that are needed besides, to start from."""

    probes: int
    """Artifacts with one quantized layer, for sensitivities."""

    observed_images: int
    """Passes of an image through a float32 build, for its statistics."""

    trainings: int
    """Trainings that were not done yet, or not to the end; several artifacts may be made of one."""

    training_updates: int
    """Their updates, if none ends early."""

    loss_of_labels: str | None
    """What labels teach by in these trainings, and why that; None if none learns from labels."""

    inferences: int
    """Images times artifacts, if no two artifacts turn out equal."""

    states: dict[str, str]
    """What the database knows about each variant's artifact, by label: `new`, `built`, or `fails` for good."""

    equal: dict[str, list[str]]
    """Labels of variants whose artifacts are known to be the same bytes, by sha256, where there are several."""

    def lines(self) -> list[str]:
        """Returns the forecast as lines for people."""
        schemes = ", ".join(f"{count} {name}" for name, count in self.variants_by_scheme.items())
        found = [f"{self.variants} variants ({schemes}) from {self.artifacts} artifacts"]
        if self.repeats:
            asked = self.variants + sum(self.repeats.values())
            found.append(f"{sum(self.repeats.values())} of {asked} variants asked for collapse to others, because they")
            found.append("  differ only in axes that do not exist for them, or stand in two blocks:")
            found += [f"  {label} is asked for {count + 1} times" for label, count in self.repeats.items()]
        found += [f"equal bytes, as earlier runs have shown: {', '.join(labels)}" for labels in self.equal.values()]
        if self.sources:
            found.append(f"{self.sources} float32 builds besides, to start from")
        if self.observed_images:
            found.append(f"{self.observed_images} passes of calibration images, one for each image and float32 build")
        if self.probes:
            found.append(f"{self.probes} artifacts with one quantized layer, to find out how sensitive each layer is")
        if self.trainings:
            found.append(f"{self.trainings} trainings of {self.training_updates} updates in all, if none ends early")
        if self.loss_of_labels:
            found.append(f"  labels teach by {self.loss_of_labels}")
        known = sum(state != "new" for state in self.states.values())
        if known:
            found.append(f"{known} variants have artifacts from earlier runs, or are known to fail")
        found.append(f"at most {self.inferences} inferences to score; nothing was run")
        return found


def forecast(plan: Plan, store: Store | None) -> Forecast:
    """Counts what a plan would do.

    Args:
        plan: What is to be done.
        store: The database, if there is one.

    Returns:
        The counts.
    """
    space = plan.spec.space
    schemes = list(dict.fromkeys(variant.scheme for variant in space.variants))
    known = {scheme: store.artifact_of(plan.request_key(scheme)) if store else None for scheme in schemes}
    equal: dict[str, list[str]] = {}
    for scheme in schemes:
        made = known[scheme]
        if isinstance(made, Artifact):
            label = next(variant.label for variant in space.variants if variant.scheme == scheme)
            equal.setdefault(made.sha256, []).append(label)
    sources = {made for scheme in schemes for made in (source_of(scheme), observed_by(scheme))} - {None, *schemes}
    trained = _trainings(plan, store, schemes)
    ranked = {ranked_by(scheme) for scheme in schemes if scheme.needs_ranking}
    return Forecast(
        variants=len(space.variants),
        repeats=space.repeats,
        variants_by_scheme=dict(Counter(variant.scheme.name for variant in space.variants)),
        artifacts=len(schemes),
        sources=len(sources),
        probes=len(ranked | set(plan.spec.sensitivity)) * len(layers(plan.detector.spec)),
        observed_images=sum(_images_by_source(plan, schemes).values()),
        trainings=len(trained),
        training_updates=sum(plan.recipe(scheme).steps(len(plan.training or ())) for scheme in trained),
        loss_of_labels=_loss_of_labels(plan, trained),
        inferences=len(plan.evaluation) * len(schemes),
        states={variant.label: _state(known[variant.scheme]) for variant in space.variants},
        equal={sha256: labels for sha256, labels in equal.items() if len(labels) > 1},
    )


_LIMITS = {
    "trials": "trials",
    "seconds": "s",
    "images": "images inferred",
    "patience": "verdicts in a row without a better one",
}
"""Stop rules in words."""


def study_lines(plan: Plan) -> list[str]:
    """Says how `quantsweep study` would search.

    Args:
        plan: What is to be done.

    Returns:
        Lines for people.
    """
    study = plan.spec.study
    looks = rungs(len(plan.evaluation), study.error_rate, study.stop_early)
    images = ", ".join(str(look.images) for look in looks)
    limits = [f"{limit:g} {_LIMITS[name]}" for name, limit in study.stop.model_dump().items() if limit is not None]
    return [
        f"a study ({study.sampler}, seed {study.seed}) tries some of them, {study.in_flight} at a time, for the least "
        f"{', '.join(study.objectives)}",
        f"  within: {plan.spec.budget.text if plan.spec.budget else 'any loss'}; scored on {images} images in turn",
        f"  until every variant is decided{''.join(f', or {limit}' for limit in limits)}",
        *_confirmation(plan),
    ]


def find_best_lines(plan: Plan) -> list[str]:
    """Says what `quantsweep sweep --find-best` would do.

    Args:
        plan: What is to be done.

    Returns:
        Lines for people.
    """
    budget = plan.spec.budget.text if plan.spec.budget else "any loss"
    return [
        "--find-best times every variant, and scores the fastest first, on all images, until one is within the budget: "
        f"{budget}",
        *_confirmation(plan),
    ]


def _confirmation(plan: Plan) -> list[str]:
    confirmation = plan.confirmation
    return [] if confirmation is None else [f"  the winner is scored on {len(confirmation)} confirmation images, too"]


def _state(known: Artifact | Failure | None) -> str:
    if known is None:
        return "new"
    return "built" if isinstance(known, Artifact) else "fails"


def _trainings(plan: Plan, store: Store | None, schemes: list[Scheme]) -> list[Qat]:
    """Schemes of distinct trainings that are not over."""
    found = {plan.training_key(each): each for each in schemes if isinstance(each, Qat) and each.is_trained}
    known = {key: store.training_of(key) if store else None for key in found}
    return [
        scheme
        for key, scheme in found.items()
        if not isinstance(made := known[key], Failure) and not (made is not None and made.is_over)
    ]


def _loss_of_labels(plan: Plan, trained: list[Qat]) -> str | None:
    recipes = [plan.recipe(scheme) for scheme in trained]
    loss = next((recipe.loss for recipe in recipes if recipe.distillation_weight < 1), None)
    return None if loss is None else described(loss, plan.detector.loss)


def _images_by_source(plan: Plan, schemes: list[Scheme]) -> dict[str, int]:
    """Number of distinct calibration images by transform; each transform has its own float32 build."""
    images: dict[str, set[int]] = {}
    for scheme in schemes:
        if observed_by(scheme) is not None:
            axes = scheme.axes()
            sample = plan.sample(axes["calibration_seed"], axes["calibration_images"])
            images.setdefault(scheme.transform, set()).update(file.image_id for file in sample)
    return {transform: len(ids) for transform, ids in images.items()}
