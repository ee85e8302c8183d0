import numpy as np
import pytest
import torch
from deseq_units import design, tensor

from epigen_utils.deseq import design as designs
from epigen_utils.deseq.design import Design


def spd(p, n_genes, seed=0):
    """Random positive definite matrices, coefficients x coefficients x genes."""
    roots = np.random.default_rng(seed).normal(size=(n_genes, p + 3, p))
    return np.einsum("gni,gnj->ijg", roots, roots)


@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_small_systems_are_those_of_numpy(p):
    matrices = spd(p, 40)
    stacked = matrices.transpose(2, 0, 1)
    factor = designs.cholesky(tensor(matrices))
    lower = np.tril(factor.numpy().transpose(2, 0, 1))
    np.testing.assert_allclose(lower, np.linalg.cholesky(stacked), rtol=1e-10)
    np.testing.assert_allclose(designs.log_determinant(factor), np.linalg.slogdet(stacked)[1], rtol=1e-10, atol=1e-10)
    vectors = np.random.default_rng(1).normal(size=(p, 40))
    solved = np.linalg.solve(stacked, vectors.T[:, :, None])[:, :, 0].T
    np.testing.assert_allclose(designs.solve(factor, tensor(vectors)), solved, rtol=1e-8, atol=1e-10)
    inverse = np.linalg.inv(stacked).transpose(1, 2, 0)
    np.testing.assert_allclose(designs.inverse(factor), inverse, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        designs.apply(tensor(matrices), tensor(vectors)), np.einsum("ijg,jg->ig", matrices, vectors), rtol=1e-10
    )


def test_a_matrix_that_is_not_positive_definite_gives_nan_and_leaves_the_others():
    matrices = spd(3, 4)
    matrices[:, :, 2] = -np.eye(3)
    factor = designs.cholesky(tensor(matrices))
    determinants = designs.log_determinant(factor)
    assert determinants.isnan().tolist() == [False, False, True, False]
    assert torch.isnan(designs.solve(factor, tensor(np.ones((3, 4))))[:, 2]).any()


@pytest.mark.parametrize("scale", [1, 1e4])
def test_the_basis_spans_the_columns_and_keeps_their_determinant(scale):
    matrix = design("batch", "dose") * [1, 1, scale]
    model = Design.of(matrix)
    np.testing.assert_allclose(model.basis.T @ model.basis, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(model.matrix @ model.to_coefficients, model.basis, atol=1e-12)
    weights = np.random.default_rng(2).uniform(0.1, 9, size=(len(matrix), 5))
    information = model.information(tensor(weights))
    inner = np.einsum("si,sg,sj->ijg", model.basis, weights, model.basis)
    np.testing.assert_allclose(information, inner, rtol=1e-9, atol=1e-9)
    given = np.einsum("si,sg,sj->gij", matrix, weights, matrix)
    np.testing.assert_allclose(
        designs.log_determinant(designs.cholesky(information)) + model.log_scale,
        np.linalg.slogdet(given)[1],
        rtol=1e-10,
    )
    leverages = np.einsum("si,ijg,sj->sg", model.basis, information, model.basis)
    np.testing.assert_allclose(model.quadratic(information), leverages, rtol=1e-9)


def test_a_ridge_penalises_the_columns_given():
    model = Design.of(design("condition", "dose"))
    penalties = np.array([0.0, 0.5, 2.0])
    beta = np.array([1.3, -0.4, 0.7])
    gamma = np.linalg.solve(model.to_coefficients.numpy(), beta)
    assert gamma @ model.ridge(tensor(penalties)).numpy() @ gamma == pytest.approx(penalties @ beta**2)


def test_cells_are_samples_of_one_row():
    model = Design.of(design("batch", "condition"))
    assert sorted(np.bincount(model.cells).tolist()) == [3, 3, 4, 4]
    assert model.in_cells_of(4).sum() == 8
    assert model.in_cells_of(3).all()
    assert not model.in_cells_of(5).any()
    assert model.residual_df == 11


@pytest.mark.parametrize(
    ("terms", "groups", "intercept"),
    [
        ((), True, True),
        (("condition",), True, False),
        (("batch", "condition"), False, False),
        (("dose",), False, False),
    ],
)
def test_kinds_of_designs(terms, groups, intercept):
    model = Design.of(design(*terms))
    assert (model.is_groups, model.is_intercept) == (groups, intercept)
    assert not Design.of(2 * design()).is_intercept


@pytest.mark.requires_gpu
def test_systems_on_a_gpu():
    matrices = tensor(spd(3, 20))
    there = designs.inverse(designs.cholesky(matrices.cuda())).cpu()
    np.testing.assert_allclose(there, designs.inverse(designs.cholesky(matrices)), rtol=1e-10)


@pytest.mark.requires_gpu
def test_the_basis_on_a_gpu_is_that_on_the_cpu():
    there, here = (Design.of(design("batch", "condition"), device) for device in ("cuda", "cpu"))
    for name in ("basis", "to_coefficients"):
        assert getattr(there, name).is_cuda
        np.testing.assert_array_equal(getattr(there, name).cpu(), getattr(here, name), err_msg=name)
    assert there.on_cpu.matrix.device.type == "cpu"
    assert here.on_cpu is here
