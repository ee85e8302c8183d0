"""Losses of the papers as pure functions of tensors.

Attention-Aligned Hybrid Loss: paper A names it once and defines nothing; the definition here is this project's. Distillation: paper B, section 2.3.1, Eqs. 4 to 6; Hinton et al. 2015 (arXiv:1503.02531), section 2, for the temperature.
"""

import torch
from torch.nn.functional import cross_entropy, log_softmax

from epigen_utils.errors import DataError

#: What alpha weighs: paper B's Eq. 4 puts it on the cross entropy, its code on the divergence.
WEIGHED = ("ce", "kl")
#: Paper B: alpha from section 2.3.1, the temperature from its code; the text gives none.
ALPHA, TEMPERATURE = 0.65, 2.5


def check_distillation(alpha: float, temperature: float, alpha_on: str) -> None:
    """Refuse what `distillation_loss` cannot mean.

    Raises
    ------
    DataError
        If alpha is not between 0 and 1, the temperature not above 0, or ``alpha_on`` not of `WEIGHED`.
    """
    if not 0 <= alpha <= 1:
        raise DataError(f"alpha {alpha}: must be from 0 to 1, the share of one of two losses")
    if not temperature > 0:
        raise DataError(f"temperature {temperature}: must be above 0; 1 leaves probabilities as they are")
    if alpha_on not in WEIGHED:
        raise DataError(f"alpha_on {alpha_on!r}: must be one of {', '.join(WEIGHED)}")


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
    """Cross entropy with the labels and divergence from a teacher, weighed.

    With ``alpha_on="ce"`` the total is alpha * CE + (1 - alpha) * KL (Eq. 4), with ``"kl"`` the other way round, as in the paper's
    code. CE is taken at temperature 1. KL(teacher || student) is of both softmaxes at the temperature, and times its square if
    ``scaled``, which keeps its gradient of the size that it has at temperature 1.

    Parameters
    ----------
    student, teacher
        Logits, genes asked for x vocabulary.
    labels
        True tokens, one a gene asked for.
    reduction
        ``mean`` over the genes, or ``sum``.

    Returns
    -------
    ``total``, ``ce`` and ``kl`` (before weighing, after scaling), in nats.

    Raises
    ------
    DataError
        As `check_distillation`, and if the vocabularies are not of one size.
    """
    check_distillation(alpha, temperature, alpha_on)
    if student.shape != teacher.shape:
        raise DataError(
            f"student and teacher: logits are {tuple(student.shape)} and {tuple(teacher.shape)}; both must be asked for the same "
            "genes of one vocabulary"
        )
    of_ce = alpha if alpha_on == "ce" else 1 - alpha
    scale = temperature**2 if scaled else 1.0
    n = max(len(labels), 1) if reduction == "mean" else 1
    total, ce, kl = _Distilled.apply(
        student.float(), teacher.float(), labels, of_ce / n, (1 - of_ce) * scale / n, temperature
    )
    return {"total": total, "ce": ce / n, "kl": kl * scale / n}


class _Distilled(torch.autograd.Function):
    """Both losses and their gradient in one go over the logits.

    The gradients are known: softmax less the label for CE, and the difference of both softmaxes over the temperature for KL. Found
    on the way they spare autograd's passes over arrays as wide as the vocabulary, which for a small student are most of a step.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        student: torch.Tensor,
        teacher: torch.Tensor,
        labels: torch.Tensor,
        of_ce: float,
        of_kl: float,
        temperature: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hard = log_softmax(student, dim=-1)
        ce = -hard.gather(1, labels[:, None]).sum()
        given, wanted = (log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
        p = wanted.exp()
        kl = torch.dot(p.ravel(), wanted.sub_(given).ravel())
        if ctx.needs_input_grad[0]:
            gradient = given.exp_().sub_(p).mul_(of_kl / temperature).add_(hard.exp_(), alpha=of_ce)
            gradient.scatter_add_(1, labels[:, None], torch.full((len(labels), 1), -of_ce, device=gradient.device))
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(ce, kl)
        return of_ce * ce + of_kl * kl, ce, kl

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
    """Cross entropy, and how far a model's attention is from a prior over the genes of its sentence.

    CE + weight * KL(p || a) + language_weight * causal language modelling. With ``a`` the attention that the read-out position pays
    to each gene, renormalised over the genes, and ``p`` the prior, renormalised over the genes of the sentence; the mean of KL is over
    sentences whose prior names a gene. A gene that the prior names and no attention reaches is as far away as the smallest number of
    the attention's precision lets it be.

    Parameters
    ----------
    logits, labels
        Sentences x classes; class of each.
    attention, prior
        Sentences x positions, 0 or more; 0 where there is no gene.
    weight
        Lambda; with 0 the loss is cross entropy to the bit, and nothing flows back through attention.
    language
        Loss of language modelling, where it is part of it.

    Returns
    -------
    ``total``, ``ce``, ``kl`` (nats), and ``language`` where it was given.

    Raises
    ------
    DataError
        If a weight is negative, shapes differ, or attention or prior is negative.
    """
    if not (weight >= 0 and language_weight >= 0):
        raise DataError(f"weights {weight} and {language_weight}: must be 0 or more")
    if attention.shape != prior.shape or len(attention) != len(labels):
        raise DataError(
            f"attention {tuple(attention.shape)}, prior {tuple(prior.shape)}, {len(labels)} labels: give one row a sentence, "
            "one column a position, in both"
        )
    if bool((prior < 0).any()) or bool((attention < 0).any()):
        raise DataError("attention and prior: a value is negative; both are shares")
    ce = cross_entropy(logits, labels)
    named = prior.sum(dim=1) > 0
    tiny = torch.finfo(attention.dtype).tiny
    p = prior[named] / prior[named].sum(dim=1, keepdim=True)
    a = attention[named] / attention[named].sum(dim=1, keepdim=True).clamp_min(tiny)
    apart = torch.where(p > 0, p * (p.clamp_min(tiny).log() - a.clamp_min(tiny).log()), 0.0).sum(dim=1)
    kl = apart.mean() if len(apart) else ce.new_zeros(())
    found = {"total": ce + weight * kl if weight else ce, "ce": ce, "kl": kl}
    if language is not None:
        found |= {"total": found["total"] + language_weight * language, "language": language}
    return found
