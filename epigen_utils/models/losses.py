"""Losses of the papers as pure functions of tensors.

Attention-Aligned Hybrid Loss: paper A names it once without a definition; the definition here is this project's.
Distillation: paper B, section 2.3.1, Eqs. 4 to 6; temperature as in Hinton et al. 2015 (arXiv:1503.02531), section 2.
"""

import torch
from torch.nn.functional import cross_entropy, log_softmax

from epigen_utils.errors import DataError

#: Loss term that alpha weights: the cross entropy in paper B's Eq. 4, the divergence in its code.
ALPHA_TERMS = ("ce", "kl")
#: Paper B: alpha from section 2.3.1; the temperature from its code, since the text gives none.
ALPHA, TEMPERATURE = 0.65, 2.5


def check_distillation_options(alpha: float, temperature: float, alpha_on: str) -> None:
    """Validate the options of `distillation_loss`.

    Raises
    ------
    DataError
        If alpha is not between 0 and 1, the temperature not above 0, or ``alpha_on`` not in `ALPHA_TERMS`.
    """
    if not 0 <= alpha <= 1:
        raise DataError(f"alpha {alpha}: must be from 0 to 1, the share of one of two losses")
    if not temperature > 0:
        raise DataError(f"temperature {temperature}: must be above 0; 1 leaves probabilities as they are")
    if alpha_on not in ALPHA_TERMS:
        raise DataError(f"alpha_on {alpha_on!r}: must be one of {', '.join(ALPHA_TERMS)}")


def distillation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    *,
    alpha: float = ALPHA,
    temperature: float = TEMPERATURE,
    scaled: bool = True,
    alpha_on: str = "ce",
    reduction: str = "mean",
) -> dict[str, torch.Tensor]:
    """Weighted sum of cross entropy with the labels and divergence from a teacher.

    With ``alpha_on="ce"`` the total is alpha * CE + (1 - alpha) * KL (Eq. 4), with ``"kl"`` the weights are exchanged,
    as in the paper's code. CE uses temperature 1. KL(teacher || student) compares both softmaxes at the given
    temperature; ``scaled`` multiplies it by the squared temperature, which keeps the magnitude of its gradient at that
    of temperature 1.

    Parameters
    ----------
    student, teacher
        Logits, masked genes x vocabulary.
    labels
        True tokens, one per masked gene.
    reduction
        ``mean`` over the genes, or ``sum``.

    Returns
    -------
    ``total``, ``ce`` and ``kl`` (scaled, not weighted), in nats.

    Raises
    ------
    DataError
        If `check_distillation_options` fails or the shapes of the logits differ.

    Examples
    --------
    >>> import torch
    >>> from epigen_utils.models import losses
    >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> loss = losses.distillation_loss(logits, 2 * logits, torch.tensor([0, 1]), alpha=0.1, temperature=2.5)
    >>> {name: round(value.item(), 4) for name, value in loss.items()}
    {'total': 0.2978, 'ce': 0.3955, 'kl': 0.2869}
    """
    check_distillation_options(alpha, temperature, alpha_on)
    if student.shape != teacher.shape:
        raise DataError(
            f"student and teacher: logits are {tuple(student.shape)} and {tuple(teacher.shape)}; both must predict "
            "the same genes of one vocabulary"
        )
    ce_weight = alpha if alpha_on == "ce" else 1 - alpha
    scale = temperature**2 if scaled else 1.0
    n = max(len(labels), 1) if reduction == "mean" else 1
    total, ce, kl = _DistillationFunction.apply(
        student.float(), teacher.float(), labels, ce_weight / n, (1 - ce_weight) * scale / n, temperature
    )
    return {"total": total, "ce": ce / n, "kl": kl * scale / n}


class _DistillationFunction(torch.autograd.Function):
    """Both losses and their gradient in one pass over the logits.

    The gradient of CE is softmax minus one-hot label, that of KL the difference of both softmaxes over the temperature.
    Computing them in the forward pass avoids autograd's passes over vocabulary-wide arrays, which dominate a step of a
    small student.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        student: torch.Tensor,
        teacher: torch.Tensor,
        labels: torch.Tensor,
        ce_weight: float,
        kl_weight: float,
        temperature: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        log_probabilities = log_softmax(student, dim=-1)  # (genes, vocabulary)
        ce = -log_probabilities.gather(1, labels[:, None]).sum()
        # Both (genes, vocabulary).
        log_q, log_p = (log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
        p = log_p.exp()
        # In place from here on: arrays of genes x vocabulary are the largest of a step.
        kl = torch.dot(p.ravel(), log_p.sub_(log_q).ravel())
        if ctx.needs_input_grad[0]:
            gradient = log_q.exp_().sub_(p).mul_(kl_weight / temperature)
            gradient = gradient.add_(log_probabilities.exp_(), alpha=ce_weight)
            gradient.scatter_add_(1, labels[:, None], torch.full((len(labels), 1), -ce_weight, device=gradient.device))
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(ce, kl)
        return ce_weight * ce + kl_weight * kl, ce, kl

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor, *_others: torch.Tensor) -> tuple:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None, None, None, None


def attention_aligned_hybrid_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    attention: torch.Tensor,
    prior: torch.Tensor,
    *,
    weight: float,
    language: torch.Tensor | None = None,
    language_weight: float = 0.0,
) -> dict[str, torch.Tensor]:
    """Cross entropy plus the divergence of a model's attention from a prior over the genes of its sentence.

    CE + weight * KL(p || a) + language_weight * language: ``a`` is the attention of the read-out position to each gene
    and ``p`` the prior, both normalised over the genes of the sentence. KL is averaged over the sentences with a gene
    in the prior. Zero attention to a gene of the prior counts as the smallest normal number of the attention's
    precision.

    Parameters
    ----------
    logits, labels
        Sentences x classes; class of each sentence.
    attention, prior
        Sentences x positions, non-negative; 0 where there is no gene.
    weight
        Lambda; at 0 the loss is exactly the cross entropy, and no gradient passes through attention.
    language
        Loss of causal language modelling, if part of the objective.

    Returns
    -------
    ``total``, ``ce``, ``kl`` (nats), and ``language`` if given.

    Raises
    ------
    DataError
        If a weight is negative, shapes differ, or attention or prior is negative.

    Examples
    --------
    >>> import torch
    >>> from epigen_utils.models import losses
    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> attention = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
    >>> prior = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> loss = losses.attention_aligned_hybrid_loss(logits, torch.tensor([0]), attention, prior, weight=0.5)
    >>> {name: round(value.item(), 4) for name, value in loss.items()}
    {'total': 0.4735, 'ce': 0.1269, 'kl': 0.6931}
    """
    if not (weight >= 0 and language_weight >= 0):
        raise DataError(f"weights {weight} and {language_weight}: must be 0 or more")
    if attention.shape != prior.shape or len(attention) != len(labels):
        raise DataError(
            f"attention {tuple(attention.shape)}, prior {tuple(prior.shape)}, {len(labels)} labels: give one row a "
            "sentence, one column a position, in both"
        )
    if bool((prior < 0).any()) or bool((attention < 0).any()):
        raise DataError("attention and prior: a value is negative; both are shares")
    ce = cross_entropy(logits, labels)
    has_prior = prior.sum(dim=1) > 0  # (sentences,)
    tiny = torch.finfo(attention.dtype).tiny
    p = prior[has_prior] / prior[has_prior].sum(dim=1, keepdim=True)  # (sentences with a prior, positions), as a
    a = attention[has_prior] / attention[has_prior].sum(dim=1, keepdim=True).clamp_min(tiny)
    divergence = torch.where(p > 0, p * (p.clamp_min(tiny).log() - a.clamp_min(tiny).log()), 0.0).sum(dim=1)
    kl = divergence.mean() if len(divergence) else ce.new_zeros(())
    terms = {"total": ce + weight * kl if weight else ce, "ce": ce, "kl": kl}
    if language is not None:
        terms |= {"total": terms["total"] + language_weight * language, "language": language}
    return terms
