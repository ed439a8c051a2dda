"""What a wrong answer costs, in torch; `tasks.training.loss_tensorflow` is its twin, operation by operation.

Sources of the formulas: see there.
"""

from typing import Any

from tasks.detector.loss import LossSettings
from tasks.training.targets import BACKGROUND, IGNORED


def detection_loss(
    codes: Any, logits: Any, target_codes: Any, target_columns: Any, settings: LossSettings, background: int | None
) -> tuple[Any, Any]:
    """Computes the two losses of a batch against labels: see `tasks.training.loss_tensorflow.detection_loss`.

    Args:
        codes: (B, A, 4) floating tensor, the box outputs.
        logits: (B, A, columns) floating tensor, the scores before the sigmoid.
        target_codes: (B, A, 4) tensor of the same type, `Targets.codes`.
        target_columns: (B, A) integer tensor, `Targets.columns`.
        settings: How background anchors are balanced.
        background: Column of the background score, None if there is none.

    Returns:
        Scalar tensors in the type of `codes`: loss of the boxes, loss of the scores.
    """
    import torch

    is_matched = target_columns >= 0
    is_background = target_columns == BACKGROUND
    matches = is_matched.sum().clamp(min=1).to(codes.dtype)
    columns = torch.arange(logits.shape[-1], device=logits.device)
    wanted = (target_columns[..., None] == columns).to(logits.dtype)
    entropy = _entropy(logits, wanted) * (columns != _place(background)).to(logits.dtype)
    if settings.balance == "focal":
        score_loss = _focal(entropy, logits, wanted, settings).sum(dim=-1)
        is_counted = target_columns != IGNORED
    else:
        score_loss = entropy.sum(dim=-1)
        is_counted = is_matched | _hard_negatives(score_loss, is_matched, is_background, settings)
    box_loss = _smooth_l1(codes - target_codes).mean(dim=-1)
    none = torch.zeros((), dtype=codes.dtype, device=codes.device)
    return (
        torch.where(is_matched, box_loss, none).sum() / matches,
        torch.where(is_counted, score_loss, none).sum() / matches,
    )


def distillation_loss(codes: Any, logits: Any, teacher_codes: Any, teacher_logits: Any, background: int | None) -> Any:
    """Computes how far a student is from its teacher: see `tasks.training.loss_tensorflow.distillation_loss`.

    Args:
        codes: (B, A, 4) floating tensor, the student's box outputs.
        logits: (B, A, columns) floating tensor, its scores before the sigmoid.
        teacher_codes: (B, A, 4) tensor of the same type, the teacher's box outputs.
        teacher_logits: (B, A, columns) tensor of the same type, its scores before the sigmoid.
        background: Column of the background score, None if there is none.

    Returns:
        Scalar tensor in the type of `codes`: 0 where both agree.
    """
    import torch

    teacher_codes, teacher_logits = teacher_codes.detach(), teacher_logits.detach()
    scores = torch.sigmoid(teacher_logits)
    is_object = torch.arange(scores.shape[-1], device=scores.device) != _place(background)
    sureness = (scores * is_object.to(scores.dtype)).amax(dim=-1)
    divergence = (_entropy(logits, scores) - _entropy(teacher_logits, scores)).sum()
    box_loss = (sureness * _smooth_l1(codes - teacher_codes).mean(dim=-1)).sum()
    return (divergence + box_loss) / sureness.sum().clamp(min=1.0)


def _place(background: int | None) -> int:
    return -1 if background is None else background


def _entropy(logits: Any, wanted: Any) -> Any:
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def _smooth_l1(difference: Any) -> Any:
    import torch

    distance = difference.abs()
    return torch.where(distance < 1.0, 0.5 * distance.square(), distance - 0.5)


def _focal(entropy: Any, logits: Any, wanted: Any, settings: LossSettings) -> Any:
    import torch
    from torch.nn.functional import logsigmoid

    # Not a power of the surprise, for the reason that its twin gives.
    log_surprise = logsigmoid((1 - 2 * wanted) * logits)
    focal = torch.exp(settings.focal_gamma * log_surprise) * entropy
    if settings.focal_alpha is None:
        return focal
    return (wanted * settings.focal_alpha + (1 - wanted) * (1 - settings.focal_alpha)) * focal


def _hard_negatives(score_loss: Any, is_matched: Any, is_background: Any, settings: LossSettings) -> Any:
    import torch

    wanted = (is_matched.sum(dim=1, keepdim=True) * settings.negatives_per_match).to(torch.int64)
    wanted = wanted.clamp(min=settings.least_negatives)
    losses = score_loss.detach().masked_fill(~is_background, -torch.inf)
    # Where losses are equal, the first anchors come first; TensorFlow's `argsort` does the same.
    order = torch.argsort(losses, dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return is_background & (rank < wanted)
