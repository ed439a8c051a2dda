"""Losses: what a detector is, or was, trained to make small; both frameworks compute it."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Balance = Literal["focal", "hard_negatives"]
"""How the many background anchors are kept from drowning the others."""


@dataclass(frozen=True)
class LossSettings:
    """What a wrong answer costs.

    Source: TensorFlow Object Detection API (TF1), `protos/losses.proto` and `core/losses.py`; the names of its fields
    stand below.
    """

    balance: Balance = "focal"
    """`focal` (`weighted_sigmoid_focal`): all background anchors count, by how surprising they are (Lin et al. 2017);
    `hard_negatives` (`weighted_sigmoid` with a `hard_example_miner`): of each image those of the greatest loss."""

    focal_alpha: float | None = 0.25
    """`alpha` of the focal loss: the weight of a wanted score; that of an unwanted one is 1 - alpha. None weighs both
    by 1."""

    focal_gamma: float = 2.0
    """`gamma` of the focal loss: power of the surprise. 0 with an alpha of None is `weighted_sigmoid` without a miner:
    sigmoid cross-entropy of all anchors, which nothing balances."""

    negatives_per_match: float = 3.0
    """`max_negatives_per_positive` of the miner."""

    least_negatives: int = 0
    """`min_negatives_per_image` of the miner."""

    box_weight: float = 1.0
    """Factor of the boxes' loss, which is averaged over the four codes: `localization_weight`, and four times that
    without `normalize_loc_loss_by_codesize`."""

    score_weight: float = 1.0
    """`classification_weight`: factor of the scores' loss."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        rules = {
            "balance": (self.balance in get_args(Balance), f"one of {', '.join(get_args(Balance))}"),
            "focal_alpha": (self.focal_alpha is None or 0 < self.focal_alpha < 1, "between 0 and 1"),
            "focal_gamma": (self.focal_gamma >= 0, "at least 0"),
            "negatives_per_match": (self.negatives_per_match >= 0, "at least 0"),
            "least_negatives": (self.least_negatives >= 0, "at least 0"),
            "box_weight": (self.box_weight >= 0, "at least 0"),
            "score_weight": (self.score_weight >= 0, "at least 0"),
        }
        for name, (is_kept, rule) in rules.items():
            if not is_kept:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {rule}")

    def __str__(self) -> str:
        """Names what tells it from others, for people."""
        name, facts = self._named
        weights = {"box": self.box_weight, "score": self.score_weight}
        facts += [f"{part} weight {weight:g}" for part, weight in weights.items() if weight != 1]
        return f"{name} ({', '.join(facts)})" if facts else name

    def is_balanced_by(self, balance: Balance) -> bool:
        """Tells whether background anchors are kept down in this way.

        Args:
            balance: The way.

        Returns:
            Whether they are; by `focal` only if surprise counts, for gamma 0 is sigmoid cross-entropy of all anchors.
        """
        return self.balance == balance and (balance != "focal" or self.focal_gamma > 0)

    @property
    def _named(self) -> tuple[str, list[str]]:
        """Its name and what belongs to its balance alone."""
        if self.balance == "hard_negatives":
            least = [f"{self.least_negatives} an image at least"] if self.least_negatives else []
            return "hard negatives", [f"{self.negatives_per_match:g} an object's anchor", *least]
        alpha = [] if self.focal_alpha is None else [f"alpha {self.focal_alpha:g}"]
        if not self.is_balanced_by("focal"):
            return "sigmoid cross-entropy of all anchors", alpha
        return "focal loss", [*(alpha or ["alpha none"]), f"gamma {self.focal_gamma:g}"]


REFERENCES: dict[Balance, LossSettings] = {
    "focal": LossSettings("focal"),
    "hard_negatives": LossSettings("hard_negatives", box_weight=4.0),
}
"""What each balance is used with, where nobody knows better: its weights were tuned together with it.

Sources: alpha and gamma of Lin et al. 2017, with the weights of the zoo's
`ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync`; the `pipeline.config` of its
`ssd_mobilenet_v1_coco_2018_01_28`, which sums the boxes' loss over the four codes."""


def loss_for(known: LossSettings | None, balance: Balance | None, focal_alpha: float | None) -> LossSettings:
    """Chooses the loss of a training: what is said, else what the detector was trained with, else focal loss.

    Weights belong to the balance that they were tuned with: another balance than the detector's is that of `REFERENCES`
    as a whole.

    Args:
        known: What the detector was trained with, if it says so.
        balance: What is said.
        focal_alpha: What is said, in (0, 1).

    Returns:
        The loss.
    """
    if known is not None and (balance is None or known.is_balanced_by(balance)):
        loss = known
    else:
        loss = REFERENCES[balance or "focal"]
    return loss if focal_alpha is None else replace(loss, focal_alpha=focal_alpha)


def described(loss: LossSettings, known: LossSettings | None) -> str:
    """Says what a training uses, and how that compares with what its detector was trained with.

    Args:
        loss: Of the training.
        known: What the detector was trained with, if it says so.

    Returns:
        Words for people.
    """
    if known is None:
        return f"{loss}; the detector does not say what it was trained with"
    return f"{loss}, as it was trained" if known == loss else f"{loss}; it was trained with {known}"
