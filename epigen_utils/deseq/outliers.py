"""Outlying counts by Cook's distance: flagged, or replaced where a cell has enough samples (Love et al. 2014, 3.6).

Tables are samples x genes.
"""

import numpy as np
import torch
from scipy.stats import f as f_distribution
from torch import Tensor

from epigen_utils.deseq import elementwise
from epigen_utils.deseq.design import Design

#: Smallest dispersion that Cook's distances use, and the number of samples in a cell that makes them meaningful.
LEAST_DISPERSION, LEAST_SAMPLES = 0.04, 3

#: Largest size of a cell, the share trimmed from either end of its values, and the factor that makes the trimmed mean
#: of squares that of a normal sample, by size.
TRIMMING = ((3, 1 / 3, 2.04), (23, 1 / 4, 1.86), (np.inf, 1 / 8, 1.51))


def cutoff(design: Design) -> float:
    """Cook's distance above which a count is an outlier: the 99% quantile of F(p, n - p)."""
    return float(f_distribution.ppf(0.99, design.n_coefficients, design.residual_df))


def trimmed_mean(values: Tensor, share: float) -> Tensor:
    """Mean over samples without a share of the smallest and of the largest values, genes."""
    cut = int(len(values) * share)
    if not cut:
        return values.mean(dim=0)
    return elementwise.sort_samples(values)[cut : len(values) - cut].mean(dim=0)


def robust_dispersions(normalised: Tensor, design: Design) -> Tensor:
    """Dispersions by moments from trimmed variances, the largest of the cells with replicates, genes."""
    enough = design.in_cells_of(LEAST_SAMPLES)
    if enough.any():
        cells = torch.as_tensor(design.cells, device=normalised.device)
        variances = [_trimmed_variance(normalised[cells == cell]) for cell in np.unique(design.cells[enough]).tolist()]
        variance = torch.stack(variances).amax(dim=0)
    else:
        _, share, scale = TRIMMING[-1]
        variance = scale * trimmed_mean((normalised - trimmed_mean(normalised, share)).square(), share)
    mean = normalised.mean(dim=0)
    return ((variance - mean) / mean.square()).clamp(min=LEAST_DISPERSION)


def _trimmed_variance(values: Tensor) -> Tensor:
    share, scale = next(rule[1:] for rule in TRIMMING if len(values) <= rule[0])
    return scale * trimmed_mean((values - trimmed_mean(values, share)).square(), share)


def cooks_distances(counts: Tensor, alpha: Tensor, mu: Tensor, leverages: Tensor, design: Design) -> Tensor:
    """Cook's distance of every count, samples x genes; dispersions by `robust_dispersions`."""
    residuals = (counts - mu).square() / (mu + alpha * mu.square())
    return residuals / design.n_coefficients * leverages / (1 - leverages).square()


def replacements(counts: Tensor, factors: Tensor, outlying: Tensor) -> Tensor:
    """The counts with outliers replaced by the trimmed mean of the gene's normalised counts, times the size factor."""
    means = (trimmed_mean(counts / factors, 0.2) * factors).floor()
    return torch.where(outlying, means, counts)


def largest_distance(cooks: Tensor, design: Design) -> Tensor:
    """Each gene's largest distance among the samples whose cell has replicates; NaN where there are none."""
    enough = torch.as_tensor(design.in_cells_of(LEAST_SAMPLES), device=cooks.device)
    if not enough.any():
        return torch.full_like(cooks[0], torch.nan)
    return cooks[enough].amax(dim=0)


def larger_counts(counts: Tensor, cooks: Tensor) -> Tensor:
    """Number of counts above the one with the largest Cook's distance, genes."""
    suspect = counts.gather(0, cooks.max(dim=0, keepdim=True).indices)
    return (counts > suspect).sum(dim=0)
