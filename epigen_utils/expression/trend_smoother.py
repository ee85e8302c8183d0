"""The local trend of dispersions, where the parametric one cannot be fitted: by loess, for R's locfit."""

from collections.abc import Callable

import numpy as np
from skmisc.loess import loess

from epigen_utils.deseq.dispersions import LOWEST


def local_regression(means: np.ndarray, genewise: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A trend of dispersions by loess of their logarithms, weighted by the mean (R's locfit by another smoother).

    Parameters
    ----------
    means, genewise
        Mean normalised counts and gene-wise dispersions, genes.

    Returns
    -------
    A function of means.
    """
    usable = genewise >= 10 * LOWEST
    x = np.log(means[usable])
    model = loess(x, np.log(genewise[usable]), weights=means[usable], span=0.7, degree=2)
    model.fit()

    def trend(at: np.ndarray) -> np.ndarray:
        inside = np.clip(np.log(at), x.min(), x.max())
        return np.exp(model.predict(inside).values)

    return trend
