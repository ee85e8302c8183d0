"""A screen that estimates the effect of deleting each gene of a cell from a few passes instead of one pass a gene.

The estimate is of ``perturbation.delete(model, cells, vocabulary, states=states)`` with mean pooling. Official
Geneformer removes a deleted gene from the sequence. This has two effects, which are estimated separately and added:

- The gene is absent from attention and pooling. Each gene j gets a presence p_j, which multiplies its weight as a key
  (before normalisation) and in the pooling. Removing j changes the attention output of query i by exactly
  a_ij / (1 - a_ij) * (out_i - v_j), where a_ij is the attention of i to j; the gradient of the cosine at ``out``
  propagates this change. The pooling is exact.
- Every later gene moves up by one position. Let ``F(k)`` be the cosine of the cell with no gene missing and the tokens
  from position k on moved up; deleting the gene at position j then gives F(j + 1). F is computed at some positions;
  between them it follows the gradient at the embeddings, and the remaining difference is interpolated linearly.
"""

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn
from torch.nn.functional import cosine_similarity
from transformers import AttentionInterface, PreTrainedModel

from epigen_utils import hidden_states, models, perturbation
from epigen_utils.errors import DataError
from epigen_utils.perturbation import Cell
from epigen_utils.vocabularies import Vocabulary

#: How a gene's absence propagates through attention: ``secant`` as above, ``gradient`` by -df/dp at p = 1.
RULES = ("secant", "gradient")
#: Estimates that `curve` compares: name -> options of `screen`.
VARIANTS: dict[str, dict[str, object]] = {
    "gradient, 1 pass": {"rule": "gradient", "steps": 1, "exact_runs": 0},
    "secant, 1 pass": {"steps": 1, "exact_runs": 0},
    "secant, 2 passes": {"exact_runs": 0},
    "secant, 2 passes, 4 exact": {"exact_runs": 4},
    "secant, 2 passes, 8 exact": {},
    "secant, 3 passes, 8 exact": {"steps": 3},
    "secant, 2 passes, 16 exact": {"exact_runs": 16},
    "secant, 2 passes, 32 exact": {"exact_runs": 32},
    "secant, 5 passes": {"steps": 5, "exact_runs": 0},
    "secant, 9 passes": {"steps": 9, "exact_runs": 0},
    "secant, 9 passes, 16 exact": {"steps": 9, "exact_runs": 16},
}


def screen(
    model: PreTrainedModel,
    cells: object,
    vocabulary: Vocabulary,
    states: dict[str, np.ndarray],
    *,
    layer: int = -1,
    exact_runs: int = 8,
    steps: int = 2,
    rule: str = "secant",
) -> pd.DataFrame:
    """Estimate how far the deletion of each gene moves each cell towards given states.

    Parameters
    ----------
    cells
        Encoded cells, something whose ``["input_ids"]`` are token ids.
    states
        Name -> centre of the state's cells (`hidden_states.centres`), width.
    exact_runs
        Number of evenly spaced positions at which F is computed without a gradient; benchmarks/perturbation.json
        records cost and recall.
    steps
        Number of evenly spaced positions at which F is computed with its gradient; 1 is the unchanged cell alone.
    rule
        One of `RULES`.

    Returns
    -------
    A row a cell and gene: ``cell``, ``gene``, ``rank`` and ``shift_<state>`` for each state, as `perturbation.perturb`
    returns them.

    Raises
    ------
    DataError
        If there is no such rule, a state is not as wide as the model, or no cell has two genes.
    """
    if rule not in RULES:
        raise DataError(f"rule {rule!r}: there are {', '.join(RULES)}")
    if steps < 1 or exact_runs < 0:
        raise DataError(
            f"steps={steps}, exact_runs={exact_runs}: give at least one step and no negative number of runs"
        )
    targets = _targets(model, states)
    part = hidden_states.up_to(model, layer)
    names = {token: gene for gene, token in vocabulary.tokens.items()}
    tables = []
    for number, ids in enumerate(np.asarray(cell).astype(np.int64) for cell in cells["input_ids"]):
        cell = Cell.of(ids, vocabulary)
        if len(cell.genes) < 2:
            continue
        screened = _One(part, ids, len(cell.before), len(cell.genes), targets)
        genes = [names[token] for token in cell.genes]
        table = pd.DataFrame({"cell": number, "gene": genes, "rank": screened.positions.numpy()})
        table[[f"shift_{name}" for name in states]] = screened.shifts(steps, exact_runs, rule)
        tables.append(table)
    if not tables:
        raise DataError("cells: none has two genes, so that nothing would be left of it; give longer cells")
    return pd.concat(tables, ignore_index=True)


def present(
    model: PreTrainedModel,
    ids: np.ndarray,
    vocabulary: Vocabulary,
    states: dict[str, np.ndarray],
    presence: torch.Tensor,
    *,
    layer: int = -1,
) -> torch.Tensor:
    """Cosine of a cell with each state when its tokens are partially present; no gene moves.

    Parameters
    ----------
    ids
        Token ids of the cell.
    presence
        p of each token, length of the cell; the result is differentiable in it.

    Returns
    -------
    One cosine a state.
    """
    ids = np.asarray(ids).astype(np.int64)
    cell = Cell.of(ids, vocabulary)
    part = hidden_states.up_to(model, layer)
    screened = _One(part, ids, len(cell.before), len(cell.genes), _targets(model, states))
    return screened.with_presence(screened.embedded([len(ids)]), presence)


def _targets(model: PreTrainedModel, states: dict[str, np.ndarray]) -> torch.Tensor:
    """States x width."""
    width = model.config.hidden_size
    for name, centre in states.items():
        if np.shape(centre) != (width,):
            raise DataError(
                f"state {name!r}: of shape {np.shape(centre)}, the model's is ({width},); embed it by this model"
            )
    if not states:
        raise DataError("states: none is given; give those that cells may move to (hidden_states.centres)")
    return torch.tensor(np.stack(list(states.values()))).float().to(model.device)


class _One:
    """A screened cell and the part of a model below a layer.

    Parameters
    ----------
    first, n
        Position of the first gene and number of genes; special tokens stand before and behind them.
    targets
        Centres of the states, states x width.
    """

    def __init__(self, part: PreTrainedModel, ids: np.ndarray, first: int, n: int, targets: torch.Tensor):
        self.part, self.first, self.n, self.targets = part, first, n, targets
        self.ids = torch.from_numpy(ids).to(targets.device)
        self.positions = torch.arange(first, first + n)

    @torch.no_grad()
    def embedded(self, starts: np.ndarray) -> torch.Tensor:
        """Embeddings of the cell with the tokens from each start on moved up by one: starts x length x width."""
        positions = torch.arange(len(self.ids), device=self.ids.device)
        moved = torch.stack([positions - (positions >= start).long() for start in starts])
        return self.part.embeddings(self.ids.expand(len(starts), -1), position_ids=moved)

    def cosines(self, embedded: torch.Tensor) -> torch.Tensor:
        """Starts x states."""
        states = self.part.encoder(embedded).last_hidden_state[:, self.positions]  # (starts, genes, width)
        return cosine_similarity(states.mean(dim=1)[:, None], self.targets, dim=-1)

    def with_presence(self, embedded: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
        """See `present`: one cosine a state."""
        with models.attending(self.part, "presence"):
            states = self.part.encoder(embedded, presence=presence).last_hidden_state[0]  # (length, width)
        weights = presence[self.positions, None]
        return cosine_similarity((states[self.positions] * weights).sum(dim=0) / weights.sum(), self.targets, dim=-1)

    def shifts(self, steps: int, exact_runs: int, rule: str) -> np.ndarray:
        """Genes x states."""
        whole, absent, slope = self.by_secant() if rule == "secant" else self.by_gradient()
        return (absent + self.moving(steps, exact_runs, whole, slope)).double().cpu().numpy()

    def by_secant(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the unchanged cell: cosines, effect of each gene's absence (genes x states), gradient at embeddings."""
        trace: list[tuple[torch.Tensor, ...]] = []
        embedded = self.embedded([len(self.ids)]).requires_grad_()
        with models.attending(self.part, "presence"):
            states = self.part.encoder(embedded, trace=trace).last_hidden_state[0, self.positions]  # (genes, width)
        mean, n = states.mean(dim=0), self.n
        cosines = cosine_similarity(mean, self.targets, dim=-1)
        outputs = [output for _, _, output in trace]
        slopes = [torch.autograd.grad(cosine, [embedded, *outputs], retain_graph=True) for cosine in cosines]
        with torch.no_grad():
            mean_without = (n * mean - states) / (n - 1)  # (genes, width): mean of the other genes
            change = cosine_similarity(mean_without[:, None], self.targets, dim=-1) - cosines  # (genes, states)
            for layer, (weights, value, output) in enumerate(trace, 1):
                absence = _absence(weights, value, output, [slope[layer] for slope in slopes])
                change += absence[self.positions] * (n / (n - 1))
        return cosines.detach(), change, torch.stack([slope[0][0] for slope in slopes], dim=-1)

    def by_gradient(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The values of `by_secant` to first order in the presence."""
        presence = torch.ones(len(self.ids), device=self.ids.device, requires_grad=True)
        embedded = self.embedded([len(self.ids)]).requires_grad_()
        cosines = self.with_presence(embedded, presence)
        slopes = [torch.autograd.grad(cosine, [presence, embedded], retain_graph=True) for cosine in cosines]
        absent = -torch.stack([slope[0] for slope in slopes], dim=-1)[self.positions]
        return cosines.detach(), absent, torch.stack([slope[1][0] for slope in slopes], dim=-1)

    def slopes(self, starts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """F (starts x states) and its gradient at the embeddings (starts x length x width x states)."""
        embedded = self.embedded(starts).requires_grad_()
        cosines = self.cosines(embedded)
        slopes = [
            torch.autograd.grad(cosines[:, s].sum(), embedded, retain_graph=True)[0] for s in range(cosines.shape[1])
        ]
        return cosines.detach(), torch.stack(slopes, dim=-1)

    def moving(self, steps: int, exact_runs: int, whole: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """F(j + 1) of each gene's position j, less F of the unchanged cell: genes x states."""
        front, end = self.first + 1, len(self.ids)
        starts = np.unique(np.linspace(front, end, steps).round().astype(int)) if steps > 1 else np.array([end])
        values, slopes = whole[None], slope[None]
        if len(starts) > 1:
            moved_values, moved_slopes = self.slopes(starts[:-1])
            values, slopes = torch.cat([moved_values, values]), torch.cat([moved_slopes, slopes])
        with torch.no_grad():
            step = (self.embedded([front]) - self.embedded([end]))[0, front:, :, None]  # (tokens, width, 1)
            path = _path(starts, (slopes[:, front:] * step).sum(dim=2), front)
            between = np.linspace(front, end, exact_runs + 2).round().astype(int)[:-1] if exact_runs else starts[:0]
            between = np.setdiff1d(between, starts)
            if len(between):
                values = torch.cat([self.values(between), values])
                starts = np.concatenate([between, starts])
            order = np.argsort(starts)
            path = _through(path, starts[order] - front, values[order])
        return path[: self.n] - whole

    def values(self, starts: np.ndarray) -> torch.Tensor:
        """F, starts x states, in batches of at most `hidden_states.POSITIONS` positions."""
        size = max(hidden_states.POSITIONS // len(self.ids), 1)
        return torch.cat([self.cosines(self.embedded(starts[a : a + size])) for a in range(0, len(starts), size)])


def _absence(
    weights: torch.Tensor, value: torch.Tensor, output: torch.Tensor, slopes: list[torch.Tensor]
) -> torch.Tensor:
    """Effect of each key's absence from one layer on the cosines: length x states.

    Parameters
    ----------
    weights
        Attention weights, 1 x heads x length x length.
    value, output
        Values and outputs of the attention, 1 x heads x length x width of a head.
    slopes
        Gradient of each state's cosine at ``output``.
    """
    ratio = (weights / (1 - weights).clamp(min=1e-6))[0]  # (heads, queries, keys)
    # The attention of a deleted gene to itself is deleted with it.
    torch.diagonal(ratio, dim1=-2, dim2=-1).zero_()
    # (heads, queries, width + 1) for each state
    columns = [torch.cat([slope[0], (slope[0] * output[0]).sum(dim=-1, keepdim=True)], dim=-1) for slope in slopes]
    # (heads, keys, states, width + 1)
    summed = (ratio.transpose(-1, -2) @ torch.cat(columns, dim=-1)).unflatten(-1, (len(slopes), -1))
    return (summed[..., -1] - (summed[..., :-1] * value[0, :, :, None]).sum(dim=-1)).sum(dim=0)


def _path(starts: np.ndarray, slopes: torch.Tensor, front: int) -> torch.Tensor:
    """F from its gradient alone, up to a constant, at starts front, front + 1, ... end: length x states.

    Parameters
    ----------
    slopes
        First-order gain of F when a token moves, at each start where the gradient was taken: starts x tokens x states,
        for tokens from ``front`` on. Between two starts their mean applies.
    """
    positions = np.arange(front, front + slopes.shape[1])
    right = np.clip(np.searchsorted(starts, positions, side="right"), 0, len(starts) - 1)
    left = np.clip(right - 1, 0, None)
    tokens = positions - front
    gains = -(slopes[left, tokens] + slopes[right, tokens]) / 2
    return torch.cat([torch.zeros_like(gains[:1]), gains.cumsum(dim=0)])


def _through(path: torch.Tensor, indices: np.ndarray, values: torch.Tensor) -> torch.Tensor:
    """A path (length x states) corrected so that it passes through the values at the indices.

    The correction is linear between two indices. With more than four values, the path is first scaled by least squares.
    """
    fitted = path[indices]
    if len(indices) > 4:
        rise, target_rise = fitted.diff(dim=0), values.diff(dim=0)
        path = path * ((rise * target_rise).sum(dim=0) / (rise**2).sum(dim=0).clamp(min=1e-20)).clamp(0, 1)
        fitted = path[indices]
    residuals = (values - fitted).double().cpu().numpy()
    every_index = np.arange(len(path))
    correction = np.stack([np.interp(every_index, indices, column) for column in residuals.T], axis=1)
    return path + torch.from_numpy(correction).to(path)


def _with_presence(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    presence: torch.Tensor | None = None,
    trace: list | None = None,
    **_options,
) -> tuple[torch.Tensor, None]:
    """Attention of one cell with partially present keys; weights, values and output are appended to ``trace``."""
    scores = torch.matmul(query, key.transpose(-1, -2))  # (1, heads, length, length)
    scores = scores * (scaling or query.shape[-1] ** -0.5)
    if presence is not None:
        weights = presence * (scores - scores.amax(dim=-1, keepdim=True).detach()).exp()
        weights = weights / weights.sum(dim=-1, keepdim=True)
    else:
        weights = torch.softmax(scores, dim=-1)
    output = torch.matmul(weights, value)  # (1, heads, length, width of a head)
    if trace is not None:
        trace.append((weights, value, output))
    return output.transpose(1, 2).contiguous(), None  # (1, length, heads, width of a head)


AttentionInterface.register("presence", _with_presence)


def recall(
    estimated: pd.DataFrame,
    exact: pd.DataFrame,
    *,
    column: str,
    top: int = 50,
    share: float = 0.25,
    signed: bool = False,
) -> pd.DataFrame:
    """Recall of the genes that move a cell most among the first-ranked genes of an estimate.

    Parameters
    ----------
    estimated, exact
        Tables of `screen` and of `perturbation.delete`, for the same cells.
    column
        ``shift_<state>``.
    share
        Share of the cell's genes that is taken from the estimate.
    signed
        Whether genes are sorted by the shift towards the state, or by its absolute value.

    Returns
    -------
    A row a cell: ``cell``, ``genes`` (of the cell), ``kept`` (genes taken from the estimate), ``top`` (at most the
    cell's genes), ``found`` and ``recall``.

    Raises
    ------
    DataError
        If the tables do not have the same genes, or lack the column.
    """
    rows = []
    for cell, both in _joined(estimated, exact, column).groupby("cell"):
        estimate, truth = (both[side] if signed else both[side].abs() for side in ("estimated", "exact"))
        n_first, n_top = int(np.ceil(share * len(both))), min(top, len(both))
        n_recalled = len(estimate.nlargest(n_first).index.intersection(truth.nlargest(n_top).index))
        rows.append((cell, len(both), n_first, n_top, n_recalled, n_recalled / n_top))
    return pd.DataFrame(rows, columns=["cell", "genes", "kept", "top", "found", "recall"])


def _joined(estimated: pd.DataFrame, exact: pd.DataFrame, column: str) -> pd.DataFrame:
    keys = ["cell", "gene", "rank"]
    for table in (estimated, exact):
        if column not in table:
            raise DataError(f"column {column!r}: not in the table; give states of the same names to both")
    both = estimated[[*keys, column]].merge(exact[[*keys, column]], on=keys, suffixes=("_estimated", "_exact"))
    if not len(both) == len(estimated) == len(exact):
        raise DataError(f"estimated and exact: {len(both)} genes in common of {len(exact)}; give both the same cells")
    return both.rename(columns={f"{column}_{side}": side for side in ("estimated", "exact")})


def curve(
    model: PreTrainedModel,
    cells: object,
    vocabulary: Vocabulary,
    states: dict[str, np.ndarray],
    *,
    layer: int = -1,
    variants: dict[str, dict[str, object]] | None = None,
    top: int = 50,
    shares: tuple[float, ...] = (0.1, 0.15, 0.25, 0.5),
    repeats: int = 1,
) -> pd.DataFrame:
    """Run estimates and exact deletions, and compare cost and recall.

    Parameters
    ----------
    variants
        Name -> options of `screen`; default `VARIANTS`.
    repeats
        Number of timings of each variant, in turn; the shortest counts.

    Returns
    -------
    A row a variant:

    - ``variant``, ``seconds``, ``exact seconds``, ``times faster``
    - ``spearman``, ``pearson``: means over cells and states
    - ``top <n> in <share>``, ``signed top <n> in <share>``: how many of the top genes, by size or signed, are in that
      share of the estimate; means over cells and states
    - ``worst top <n> in <share>``: the minimum over cells and states
    """
    variants = VARIANTS if variants is None else variants
    seconds: dict[str, list[float]] = {name: [] for name in ["exact", *variants]}
    tables = {}
    for _ in range(repeats):
        for name in seconds:
            start = time.perf_counter()
            if name == "exact":
                tables[name] = perturbation.delete(model, cells, vocabulary, states=states, layer=layer)
            else:
                tables[name] = screen(model, cells, vocabulary, states, layer=layer, **variants[name])
            seconds[name].append(time.perf_counter() - start)
    exact, shortest = tables.pop("exact"), {name: min(times) for name, times in seconds.items()}
    rows = []
    for name, table in tables.items():
        row = {"variant": name, "seconds": shortest[name], "exact seconds": shortest["exact"]}
        row["times faster"] = shortest["exact"] / shortest[name]
        rows.append(row | _agreement(table, exact, [f"shift_{state}" for state in states], top, shares))
    return pd.DataFrame(rows)


def _agreement(
    table: pd.DataFrame, exact: pd.DataFrame, columns: list[str], top: int, shares: tuple[float, ...]
) -> dict[str, float]:
    scores = {"spearman": np.mean(list(_correlations(table, exact, columns, spearmanr)))}
    scores["pearson"] = np.mean(list(_correlations(table, exact, columns, pearsonr)))
    for share in shares:
        for signed in (False, True):
            options = {"top": top, "share": share, "signed": signed}
            counts = pd.concat([recall(table, exact, column=column, **options) for column in columns])["found"]
            scores[f"{'signed ' if signed else ''}top {top} in {share:g}"] = counts.mean()
            if not signed:
                scores[f"worst top {top} in {share:g}"] = counts.min()
    return {name: float(value) for name, value in scores.items()}


def _correlations(table: pd.DataFrame, exact: pd.DataFrame, columns: list[str], kind: object) -> Iterator[float]:
    for column in columns:
        for _, both in _joined(table, exact, column).groupby("cell"):
            yield float(kind(both["estimated"], both["exact"]).statistic)
