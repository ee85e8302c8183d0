"""Which genes' deletion moves a cell most, estimated for all of its genes from a few passes instead of one a gene.

What is estimated is ``perturbation.delete(model, cells, vocabulary, states=states)`` with mean pooling. Official
Geneformer takes a deleted gene out of the sequence, which does two things that are estimated apart and added:

- The gene is no longer there to be attended to or pooled over. Each gene j gets a presence p_j, which multiplies the
  weight that j has as a key (before weights are normalised) and in the pooling. Taking j away changes what a query i
  reads by a_ij / (1 - a_ij) * (out_i - v_j), a_ij being its attention to j, exactly; the gradient of the cosine at
  ``out`` carries this on. The pooling is exact.
- Every gene behind it moves one position to the front. With ``F(k)`` the cosine of the cell whose tokens from place k
  on have moved and in which no gene is missing, deleting the gene at place j makes F(j + 1) of it. F is known where
  it is computed; in between it follows the gradient at the embeddings, and what that leaves over is spread evenly.
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

#: How a gene's absence is carried through attention: ``secant`` as above, ``gradient`` by -df/dp at p = 1.
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
    """Estimate how far the deletion of each gene moves each cell towards some states.

    Parameters
    ----------
    cells
        Encoded cells, something whose ``["input_ids"]`` are token ids.
    states
        Name -> where its cells lie (`hidden_states.centres`), width.
    exact_runs
        Evenly spaced places at which F is computed without a gradient. What they cost and find:
        benchmarks/perturbation.json.
    steps
        Evenly spaced places at which F is computed with its gradient; with one, only for the cell as it is.
    rule
        Of `RULES`.

    Returns
    -------
    A row a cell and gene, as of `perturbation.perturb`: ``cell``, ``gene``, ``rank``, and ``shift_<state>`` for each.

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
        one = _One(part, ids, len(cell.before), len(cell.genes), targets)
        found = pd.DataFrame(
            {"cell": number, "gene": [names[token] for token in cell.genes], "rank": one.places.numpy()}
        )
        found[[f"shift_{name}" for name in states]] = one.shifts(steps, exact_runs, rule)
        tables.append(found)
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
    """Cosine of a cell with each state when its tokens are there in part; no gene moves.

    Parameters
    ----------
    ids
        Token ids of the cell.
    presence
        p of each token, of the length of the cell; with gradient if it asks for one.

    Returns
    -------
    One cosine a state.
    """
    cell = Cell.of(np.asarray(ids).astype(np.int64), vocabulary)
    part = hidden_states.up_to(model, layer)
    one = _One(part, np.asarray(ids).astype(np.int64), len(cell.before), len(cell.genes), _targets(model, states))
    return one.with_presence(one.embedded([len(ids)]), presence)


def _targets(model: PreTrainedModel, states: dict[str, np.ndarray]) -> torch.Tensor:
    """States x width."""
    width = model.config.hidden_size
    for name, place in states.items():
        if np.shape(place) != (width,):
            raise DataError(
                f"state {name!r}: of shape {np.shape(place)}, the model's is ({width},); embed it by this model"
            )
    if not states:
        raise DataError("states: none is given; give those that cells may move to (hidden_states.centres)")
    return torch.tensor(np.stack(list(states.values()))).float().to(model.device)


class _One:
    """One cell in the part of a model below a layer.

    Parameters
    ----------
    first, n
        Place of the first gene and number of genes; special tokens stand before and behind them.
    """

    def __init__(self, part: PreTrainedModel, ids: np.ndarray, first: int, n: int, targets: torch.Tensor):
        self.part, self.first, self.n, self.targets = part, first, n, targets
        self.ids = torch.from_numpy(ids).to(targets.device)
        self.places = torch.arange(first, first + n)

    @torch.no_grad()
    def embedded(self, places: np.ndarray) -> torch.Tensor:
        """Of each place, the cell's tokens with those from there on moved by one: places x length x width."""
        at = torch.arange(len(self.ids), device=self.ids.device)
        moved = torch.stack([at - (at >= place).long() for place in places])
        return self.part.embeddings(self.ids.expand(len(places), -1), position_ids=moved)

    def cosines(self, embedded: torch.Tensor) -> torch.Tensor:
        """Places x states."""
        states = self.part.encoder(embedded).last_hidden_state[:, self.places]
        return cosine_similarity(states.mean(dim=1)[:, None], self.targets, dim=-1)

    def with_presence(self, embedded: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
        """See `present`."""
        with models.attending(self.part, "presence"):
            states = self.part.encoder(embedded, presence=presence).last_hidden_state[0]
        weights = presence[self.places, None]
        return cosine_similarity((states[self.places] * weights).sum(dim=0) / weights.sum(), self.targets, dim=-1)

    def shifts(self, steps: int, exact_runs: int, rule: str) -> np.ndarray:
        """Genes x states."""
        whole, absent, slope = self.by_secant() if rule == "secant" else self.by_gradient()
        return (absent + self.moving(steps, exact_runs, whole, slope)).double().cpu().numpy()

    def by_secant(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the cell as it is: cosines, what each gene's absence does (genes x states), gradient at the embeddings."""
        kept: list[tuple[torch.Tensor, ...]] = []
        embedded = self.embedded([len(self.ids)]).requires_grad_()
        with models.attending(self.part, "presence"):
            states = self.part.encoder(embedded, kept=kept).last_hidden_state[0, self.places]
        mean, n = states.mean(dim=0), self.n
        cosines = cosine_similarity(mean, self.targets, dim=-1)
        read = [out for _, _, out in kept]
        slopes = [torch.autograd.grad(cosine, [embedded, *read], retain_graph=True) for cosine in cosines]
        with torch.no_grad():
            left = (n * mean - states) / (n - 1)
            change = cosine_similarity(left[:, None], self.targets, dim=-1) - cosines
            for number, (weights, value, out) in enumerate(kept, 1):
                change += _absence(weights, value, out, [slope[number] for slope in slopes])[self.places] * (
                    n / (n - 1)
                )
        return cosines.detach(), change, torch.stack([slope[0][0] for slope in slopes], dim=-1)

    def by_gradient(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `by_secant`, to first order in the presence."""
        presence = torch.ones(len(self.ids), device=self.ids.device, requires_grad=True)
        embedded = self.embedded([len(self.ids)]).requires_grad_()
        cosines = self.with_presence(embedded, presence)
        slopes = [torch.autograd.grad(cosine, [presence, embedded], retain_graph=True) for cosine in cosines]
        absent = -torch.stack([slope[0] for slope in slopes], dim=-1)[self.places]
        return cosines.detach(), absent, torch.stack([slope[1][0] for slope in slopes], dim=-1)

    def slopes(self, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """F (places x states) and its gradient at the embeddings (places x length x width x states)."""
        embedded = self.embedded(places).requires_grad_()
        cosines = self.cosines(embedded)
        slopes = [
            torch.autograd.grad(cosines[:, s].sum(), embedded, retain_graph=True)[0] for s in range(cosines.shape[1])
        ]
        return cosines.detach(), torch.stack(slopes, dim=-1)

    def moving(self, steps: int, exact_runs: int, whole: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """F(j + 1) of each gene's place j, less F of the cell as it is: genes x states."""
        front, end = self.first + 1, len(self.ids)
        places = np.unique(np.linspace(front, end, steps).round().astype(int)) if steps > 1 else np.array([end])
        values, slopes = whole[None], slope[None]
        if len(places) > 1:
            more = self.slopes(places[:-1])
            values, slopes = torch.cat([more[0], values]), torch.cat([more[1], slopes])
        with torch.no_grad():
            step = (self.embedded([front]) - self.embedded([end]))[0, front:, :, None]
            path = _path(places, (slopes[:, front:] * step).sum(dim=2), front)
            between = np.linspace(front, end, exact_runs + 2).round().astype(int)[:-1] if exact_runs else places[:0]
            between = np.setdiff1d(between, places)
            if len(between):
                values = torch.cat([self.values(between), values])
                places = np.concatenate([between, places])
            order = np.argsort(places)
            found = _through(path, places[order] - front, values[order])
        return found[: self.n] - whole

    def values(self, places: np.ndarray) -> torch.Tensor:
        """F, places x states, as many at once as `hidden_states.POSITIONS` holds."""
        size = max(hidden_states.POSITIONS // len(self.ids), 1)
        return torch.cat([self.cosines(self.embedded(places[a : a + size])) for a in range(0, len(places), size)])


def _absence(weights: torch.Tensor, value: torch.Tensor, out: torch.Tensor, slopes: list[torch.Tensor]) -> torch.Tensor:
    """What each key's absence from one layer does to the cosines: length x states.

    Parameters
    ----------
    weights
        Of attention, 1 x heads x length x length.
    value, out
        What is read, and what is made of it: 1 x heads x length x width of a head.
    slopes
        Gradient of each state's cosine at ``out``.
    """
    ratio = (weights / (1 - weights).clamp(min=1e-6))[0]
    # What a deleted gene reads itself is deleted with it.
    torch.diagonal(ratio, dim1=-2, dim2=-1).zero_()
    columns = [torch.cat([slope[0], (slope[0] * out[0]).sum(dim=-1, keepdim=True)], dim=-1) for slope in slopes]
    summed = (ratio.transpose(-1, -2) @ torch.cat(columns, dim=-1)).unflatten(-1, (len(slopes), -1))
    return (summed[..., -1] - (summed[..., :-1] * value[0, :, :, None]).sum(dim=-1)).sum(dim=0)


def _path(places: np.ndarray, slopes: torch.Tensor, front: int) -> torch.Tensor:
    """F by its gradient alone, but for a constant, at places front, front + 1, ... end.

    Parameters
    ----------
    slopes
        What F gains to first order when the token at a place from ``front`` on moves, at each of the places where the
        gradient was taken: places x tokens x states. Between two, their mean.
    """
    at = np.arange(front, front + slopes.shape[1])
    right = np.clip(np.searchsorted(places, at, side="right"), 0, len(places) - 1)
    left = np.clip(right - 1, 0, None)
    tokens = at - front
    gains = -(slopes[left, tokens] + slopes[right, tokens]) / 2
    return torch.cat([torch.zeros_like(gains[:1]), gains.cumsum(dim=0)])


def _through(path: torch.Tensor, places: np.ndarray, values: torch.Tensor) -> torch.Tensor:
    """A path (length x states) bent, evenly between two places, so that it goes through the values at the places.

    How much of the path is followed is fitted to the values, where there are enough of them.
    """
    known = path[places]
    if len(places) > 4:
        rise, wanted = known.diff(dim=0), values.diff(dim=0)
        path = path * ((rise * wanted).sum(dim=0) / (rise**2).sum(dim=0).clamp(min=1e-20)).clamp(0, 1)
        known = path[places]
    at = np.arange(len(path))
    off = (values - known).double().cpu().numpy()
    bent = np.stack([np.interp(at, places, column) for column in off.T], axis=1)
    return path + torch.from_numpy(bent).to(path)


def _with_presence(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    presence: torch.Tensor | None = None,
    kept: list | None = None,
    **_options,
) -> tuple[torch.Tensor, None]:
    """Attention of one cell whose keys are there in part; ``kept`` gets each layer's weights, values and output."""
    scores = torch.matmul(query, key.transpose(-1, -2)) * (scaling or query.shape[-1] ** -0.5)
    if presence is not None:
        weights = presence * (scores - scores.amax(dim=-1, keepdim=True).detach()).exp()
        weights = weights / weights.sum(dim=-1, keepdim=True)
    else:
        weights = torch.softmax(scores, dim=-1)
    out = torch.matmul(weights, value)
    if kept is not None:
        kept.append((weights, value, out))
    return out.transpose(1, 2).contiguous(), None


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
    """How many of the genes that move a cell most are among the first of an estimate.

    Parameters
    ----------
    estimated, exact
        Of `screen` and of `perturbation.delete`, of the same cells.
    column
        ``shift_<state>``.
    share
        Of the cell's genes, by the estimate.
    signed
        Whether genes are sorted by the shift, the furthest towards the state first; else by its size.

    Returns
    -------
    A row a cell: ``cell``, ``genes`` (of the cell), ``kept`` (first genes of the estimate), ``top`` (or all genes of a
    smaller cell), ``found`` and ``recall``.

    Raises
    ------
    DataError
        If the tables are not of the same genes, or have no such column.
    """
    rows = []
    for cell, both in _joined(estimated, exact, column).groupby("cell"):
        ours, true = (both[side] if signed else both[side].abs() for side in ("estimated", "exact"))
        kept, wanted = int(np.ceil(share * len(both))), min(top, len(both))
        found = ours.nlargest(kept).index.intersection(true.nlargest(wanted).index)
        rows.append((cell, len(both), kept, wanted, len(found), len(found) / wanted))
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
    """Estimates beside exact deletions, both run here: what each costs and what it finds.

    Parameters
    ----------
    variants
        Name -> options of `screen`; by default `VARIANTS`.
    repeats
        All are timed in turn so many times; the best time counts.

    Returns
    -------
    A row a variant: ``variant``, ``seconds``, ``exact seconds``, ``times faster``; means over cells and states of
    ``spearman``, ``pearson``, ``top <n> in <share>`` (genes found of the top by size) and
    ``signed top <n> in <share>``; and the least ``worst top <n> in <share>``.
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
    exact, best = tables.pop("exact"), {name: min(runs) for name, runs in seconds.items()}
    rows = []
    for name, table in tables.items():
        row = {"variant": name, "seconds": best[name], "exact seconds": best["exact"]}
        row["times faster"] = best["exact"] / best[name]
        rows.append(row | _agreement(table, exact, [f"shift_{state}" for state in states], top, shares))
    return pd.DataFrame(rows)


def _agreement(
    table: pd.DataFrame, exact: pd.DataFrame, columns: list[str], top: int, shares: tuple[float, ...]
) -> dict[str, float]:
    found = {"spearman": np.mean(list(_correlations(table, exact, columns, spearmanr)))}
    found["pearson"] = np.mean(list(_correlations(table, exact, columns, pearsonr)))
    for share in shares:
        for signed in (False, True):
            options = {"top": top, "share": share, "signed": signed}
            counts = pd.concat([recall(table, exact, column=column, **options) for column in columns])["found"]
            found[f"{'signed ' if signed else ''}top {top} in {share:g}"] = counts.mean()
            if not signed:
                found[f"worst top {top} in {share:g}"] = counts.min()
    return {name: float(value) for name, value in found.items()}


def _correlations(table: pd.DataFrame, exact: pd.DataFrame, columns: list[str], kind: object) -> Iterator[float]:
    for column in columns:
        for _, both in _joined(table, exact, column).groupby("cell"):
            yield float(kind(both["estimated"], both["exact"]).statistic)
