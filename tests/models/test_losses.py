"""The losses against plain arithmetic, and against what they are made of."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from epigen_utils.errors import DataError
from epigen_utils.models import losses


def by_hand(student, teacher, labels, alpha, temperature, scaled):
    """Paper B's Eqs. 4 to 6, gene by gene in double precision."""
    ce, kl = [], []
    for s, t, y in zip(student.double().numpy(), teacher.double().numpy(), labels.numpy(), strict=True):
        ce.append(-np.log(np.exp(s[y]) / np.exp(s).sum()))
        p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum() for x in (t, s))
        kl.append((p * np.log(p / q)).sum() * (temperature**2 if scaled else 1))
    return alpha * np.mean(ce) + (1 - alpha) * np.mean(kl)


@pytest.fixture
def logits():
    drawn = torch.Generator().manual_seed(0)
    return (*torch.randn(2, 7, 30, generator=drawn), torch.randint(30, (7,), generator=drawn))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_equations(logits, temperature, scaled):
    found = losses.distillation_loss(*logits, alpha=0.65, temperature=temperature, scaled=scaled)
    assert float(found["total"]) == pytest.approx(by_hand(*logits, 0.65, temperature, scaled), abs=1e-6)


def test_the_codes_convention_is_the_other_way_round(logits):
    one = losses.distillation_loss(*logits, alpha=0.65, alpha_on="kl")
    other = losses.distillation_loss(*logits, alpha=0.35, alpha_on="ce")
    assert float(one["total"]) == pytest.approx(float(other["total"]), abs=1e-6)


def test_a_student_like_its_teacher_has_no_divergence_and_no_gradient_from_it(logits):
    student = logits[1].clone().requires_grad_()
    found = losses.distillation_loss(student, logits[1], logits[2], alpha=0.0)
    found["total"].backward()
    assert abs(found["kl"].item()) < 1e-5
    assert float(student.grad.abs().max()) < 1e-6


def test_alpha_one_is_cross_entropy_and_asks_nothing_of_the_teacher(logits):
    student, teacher, labels = logits
    found = losses.distillation_loss(student, teacher, labels, alpha=1.0)
    other = losses.distillation_loss(student, teacher * 3, labels, alpha=1.0)
    assert float(found["total"]) == float(other["total"]) == pytest.approx(float(found["ce"]))


def test_the_squared_temperature_keeps_the_gradients_size(logits):
    def gradient(temperature, scaled):
        student = logits[0].clone().requires_grad_()
        options = {"alpha": 0.0, "temperature": temperature, "scaled": scaled}
        losses.distillation_loss(student, *logits[1:], **options)["total"].backward()
        return float(student.grad.norm())

    assert gradient(50.0, True) == pytest.approx(gradient(20.0, True), rel=0.1)
    assert gradient(50.0, False) < 0.2 * gradient(20.0, False)


@pytest.mark.parametrize("alpha_on", losses.ALPHA_TERMS)
def test_gradients_are_those_of_pytorchs_own_losses(logits, alpha_on):
    student, teacher, labels = logits
    ours, theirs = (student.clone().requires_grad_() for _ in range(2))
    found = losses.distillation_loss(ours, teacher, labels, alpha=0.7, alpha_on=alpha_on)
    found["total"].mul(3).backward()
    soft = [log_softmax(some / losses.TEMPERATURE, dim=-1) for some in (theirs, teacher)]
    kl = kl_div(*soft, reduction="batchmean", log_target=True) * losses.TEMPERATURE**2
    ce = cross_entropy(theirs, labels)
    of_ce = 0.7 if alpha_on == "ce" else 0.3
    (of_ce * ce + (1 - of_ce) * kl).mul(3).backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-7)
    assert found["kl"].item() == pytest.approx(kl.item(), abs=1e-6)


def test_no_gene_asked_for_is_no_loss():
    student = torch.zeros(0, 30, requires_grad=True)
    found = losses.distillation_loss(student, torch.zeros(0, 30), torch.zeros(0, dtype=torch.long))
    found["total"].backward()
    assert found["total"].item() == 0
    assert student.grad.shape == (0, 30)


def test_sums_are_means_times_genes(logits):
    one = losses.distillation_loss(*logits)
    whole = losses.distillation_loss(*logits, reduction="sum")
    assert float(whole["total"]) == pytest.approx(7 * float(one["total"]), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": 1.2}, "alpha 1.2"),
        ({"alpha": -0.1}, "alpha -0.1"),
        ({"alpha": float("nan")}, "alpha nan"),
        ({"temperature": 0}, "temperature 0"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"alpha_on": "both"}, "alpha_on 'both'"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(logits, options, said):
    with pytest.raises(DataError, match=said) as found:
        losses.distillation_loss(*logits, **options)
    assert "\n" not in str(found.value)


def test_two_vocabularies_are_refused(logits):
    with pytest.raises(DataError, match="one vocabulary"):
        losses.distillation_loss(logits[0], logits[1][:, :20], logits[2])


@pytest.fixture
def sentences():
    drawn = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 2, generator=drawn, dtype=torch.float64)
    attention = torch.rand(4, 9, generator=drawn, dtype=torch.float64)
    prior = (torch.rand(4, 9, generator=drawn) > 0.6).double()
    attention[:, 7:] = prior[:, 7:] = 0
    return logits, torch.tensor([0, 1, 1, 0]), attention, prior


def test_aahl_by_hand(sentences):
    logits, labels, attention, prior = sentences
    found = losses.attention_aligned_hybrid_loss(*sentences, weight=0.7)
    kl = []
    for a, p in zip(attention.numpy(), prior.numpy(), strict=True):
        a, p = a / a.sum(), p / p.sum()
        kl.append(sum(q * np.log(q / r) for q, r in zip(p, a, strict=True) if q > 0))
    assert float(found["kl"]) == pytest.approx(np.mean(kl))
    assert float(found["total"]) == pytest.approx(float(cross_entropy(logits, labels)) + 0.7 * np.mean(kl))


def test_aahl_of_no_weight_is_cross_entropy_to_the_bit(sentences):
    logits, labels, attention, prior = sentences
    attention = attention.clone().requires_grad_()
    found = losses.attention_aligned_hybrid_loss(logits.requires_grad_(), labels, attention, prior, weight=0.0)
    assert torch.equal(found["total"], cross_entropy(logits, labels))
    found["total"].backward()
    assert attention.grad is None


def test_aahl_gradients_are_those_of_finite_differences(sentences):
    logits, labels, attention, prior = sentences
    prior = prior[:, :7]

    def total(logits, attention):
        return losses.attention_aligned_hybrid_loss(logits, labels, attention, prior, weight=0.7)["total"]

    attention = attention[:, :7].clone().requires_grad_()
    assert torch.autograd.gradcheck(total, (logits.clone().requires_grad_(), attention))


def test_aahl_pulls_attention_to_the_prior(sentences):
    logits, labels, _, prior = sentences
    scores = torch.zeros(4, 9, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([scores], lr=5.0)
    inside = torch.zeros(4, 9, dtype=torch.bool)
    inside[:, :7] = True
    for _ in range(200):
        attention = torch.softmax(scores.masked_fill(~inside, -torch.inf), dim=1)
        found = losses.attention_aligned_hybrid_loss(logits, labels, attention, prior, weight=1.0)
        optimiser.zero_grad()
        found["total"].backward()
        optimiser.step()
    torch.testing.assert_close(attention, prior / prior.sum(dim=1, keepdim=True), atol=0.02, rtol=0)


def test_aahl_of_sentences_that_the_prior_knows_nothing_of(sentences):
    logits, labels, attention, prior = sentences
    found = losses.attention_aligned_hybrid_loss(logits, labels, attention, prior * 0, weight=1.0)
    assert float(found["kl"]) == 0
    some = prior.clone()
    some[1:] = 0
    one = losses.attention_aligned_hybrid_loss(logits, labels, attention, some, weight=1.0)
    alone = losses.attention_aligned_hybrid_loss(logits[:1], labels[:1], attention[:1], prior[:1], weight=1.0)
    assert float(one["kl"]) == pytest.approx(float(alone["kl"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y, a, p: ((x, y, a, p), {"weight": -1.0}), "weights -1.0"),
        (lambda x, y, a, p: ((x, y, a, p[:, :3]), {"weight": 1.0}), "one column a position"),
        (lambda x, y, a, p: ((x, y, a - 1, p), {"weight": 1.0}), "negative"),
    ],
)
def test_aahl_of_what_cannot_be_meant_is_said_in_one_line(sentences, change, said):
    arguments, options = change(*sentences)
    with pytest.raises(DataError, match=said) as found:
        losses.attention_aligned_hybrid_loss(*arguments, **options)
    assert "\n" not in str(found.value)


@st.composite
def predictions(draw):
    """Logits of a student and of its teacher in double precision, and true tokens."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 7)))
    student, teacher = (
        torch.from_numpy(draw(arrays(np.float64, shape, elements=st.floats(-30, 30)))) for _ in range(2)
    )
    return (
        student,
        teacher,
        torch.tensor(draw(st.lists(st.integers(0, shape[1] - 1), min_size=shape[0], max_size=shape[0]))),
    )


@given(
    logits=predictions(), alpha=st.floats(0, 1), temperature=st.floats(0.5, 20), scaled=st.booleans(),
    alpha_on=st.sampled_from(losses.ALPHA_TERMS), reduction=st.sampled_from(["mean", "sum"]), shift=st.floats(-10, 10),
)  # fmt: skip
def test_any_distillation_loss_and_its_gradient_are_those_of_pytorch_in_double_precision(
    logits, alpha, temperature, scaled, alpha_on, reduction, shift
):
    student, teacher, labels = logits
    options = {
        "alpha": alpha,
        "temperature": temperature,
        "scaled": scaled,
        "alpha_on": alpha_on,
        "reduction": reduction,
    }
    ours, exact = student.float().requires_grad_(), student.clone().requires_grad_()
    found = losses.distillation_loss(ours, teacher, labels, **options)
    found["total"].backward()
    soft = [log_softmax(some / temperature, dim=-1) for some in (exact, teacher)]
    scale = (temperature**2 if scaled else 1) / (len(labels) if reduction == "mean" else 1)
    ce, kl = cross_entropy(exact, labels, reduction=reduction), kl_div(*soft, reduction="sum", log_target=True) * scale
    of_ce = alpha if alpha_on == "ce" else 1 - alpha
    total = of_ce * ce + (1 - of_ce) * kl
    total.backward()
    close = {"rel": 1e-4, "abs": 1e-5 * max(scale, 1) * len(labels)}
    assert found["ce"].item() == pytest.approx(ce.item(), **close)
    assert found["kl"].item() == pytest.approx(kl.item(), **close)
    assert found["total"].item() == pytest.approx(total.item(), **close)
    assert found["ce"].item() >= 0
    assert found["kl"].item() >= -close["abs"]
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-4, atol=close["abs"])
    assert float(ours.grad.sum(dim=1).abs().max()) < 1e-4 * max(scale, 1), "adding to all logits changes nothing"
    moved = losses.distillation_loss(student + shift, teacher - shift, labels, **options)
    assert moved["total"].item() == pytest.approx(total.item(), rel=1e-3, abs=10 * close["abs"])


SHARES = arrays(np.float64, (3, 5), elements=st.floats(1e-3, 1))


@given(attention=SHARES, prior=SHARES, kept=arrays(bool, (3, 5)), scale=st.floats(0.1, 10), weight=st.floats(0.01, 3))
def test_any_aahl_is_scipys_divergence_its_gradient_that_of_differences_and_shares_are_relative(
    attention, prior, kept, scale, weight
):
    prior = np.where(kept, prior, 0)
    logits, labels = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2), torch.tensor([0, 1, 1])

    def loss(logits, attention, prior=torch.from_numpy(prior)):  # noqa: B008 - it is not changed
        return losses.attention_aligned_hybrid_loss(logits, labels, attention, prior, weight=weight)

    found = loss(logits, torch.from_numpy(attention))
    known = prior.sum(axis=1) > 0
    divergence = entropy(prior[known], attention[known], axis=1).mean() if known.any() else 0.0
    assert found["kl"].item() == pytest.approx(divergence, abs=1e-9)
    assert found["kl"].item() >= -1e-12
    assert found["total"].item() == pytest.approx(cross_entropy(logits, labels).item() + weight * divergence)
    relative = loss(logits, torch.from_numpy(attention * scale), torch.from_numpy(prior * scale**2))
    assert relative["total"].item() == pytest.approx(found["total"].item())
    differentiable = logits.requires_grad_(), torch.from_numpy(attention).requires_grad_()
    assert torch.autograd.gradcheck(lambda *some: loss(*some)["total"], differentiable)
