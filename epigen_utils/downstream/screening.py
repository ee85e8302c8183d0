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

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cosine_similarity
from transformers import AttentionInterface, PreTrainedModel

from epigen_utils.downstream.perturbed_cells import CellTokens
from epigen_utils.errors import DataError
from epigen_utils.geneformer import embeddings
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import Vocabulary
from epigen_utils.models import attention_kernels, batching

#: How a gene's absence propagates through attention: ``secant`` as above, ``gradient`` by -df/dp at p = 1.
ABSENCE_RULES = ("secant", "gradient")


def screen(
    model: PreTrainedModel,
    cells: EncodedCells,
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
    states
        Name -> centre of the state's cells (`embeddings.state_centres`), width.
    exact_runs
        Number of evenly spaced positions at which F is computed without a gradient; benchmarks/perturbation.json
        records cost and recall.
    steps
        Number of evenly spaced positions at which F is computed with its gradient; 1 is the unchanged cell alone.
    rule
        One of `ABSENCE_RULES`.

    Returns
    -------
    A row a cell and gene: ``cell``, ``gene``, ``rank`` and ``shift_<state>`` for each state, as `perturbation.perturb`
    returns them.

    Raises
    ------
    DataError
        If there is no such rule, a state is not as wide as the model, or no cell has two genes.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.downstream import screening
    >>> from epigen_utils.geneformer import vocabularies
    >>> from epigen_utils.models import presets
    >>> genes = ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"]
    >>> vocabulary = vocabularies.vocabulary_from_medians(dict.fromkeys(genes, 1.0), name="mine")
    >>> model = presets.build(presets.preset("bert-tiny", vocab_size=vocabulary.size), "masked-lm")
    >>> states = {"goal": np.ones(model.config.hidden_size, dtype=np.float32)}
    >>> shifts = screening.screen(model, {"input_ids": [[2, 3, 4]]}, vocabulary, states, exact_runs=1, steps=1)
    >>> shifts[["cell", "gene", "rank"]]
       cell             gene  rank
    0     0  ENSG00000000001     0
    1     0  ENSG00000000002     1
    2     0  ENSG00000000003     2
    >>> list(shifts)
    ['cell', 'gene', 'rank', 'shift_goal']
    """
    if rule not in ABSENCE_RULES:
        raise DataError(f"rule {rule!r}: there are {', '.join(ABSENCE_RULES)}")
    if steps < 1 or exact_runs < 0:
        raise DataError(
            f"steps={steps}, exact_runs={exact_runs}: give at least one step and no negative number of runs"
        )
    targets = _target_tensor(model, states)
    part = embeddings.truncate_model(model, layer)
    names = {token: gene for gene, token in vocabulary.tokens.items()}
    tables = []
    for number, ids in enumerate(token_ids(cells)):
        ids = ids.astype(np.int64)
        cell = CellTokens.of(ids, vocabulary)
        if len(cell.genes) < 2:
            continue
        screened = _ScreenedCell(part, ids, len(cell.before), len(cell.genes), targets)
        genes = [names[token] for token in cell.genes]
        table = pd.DataFrame({"cell": number, "gene": genes, "rank": screened.positions.numpy()})
        table[[f"shift_{name}" for name in states]] = screened.shifts(steps, exact_runs, rule)
        tables.append(table)
    if not tables:
        raise DataError("cells: none has two genes, so that nothing would be left of it; give longer cells")
    return pd.concat(tables, ignore_index=True)


def n_passes(n_states: int, *, exact_runs: int = 8, steps: int = 2, rule: str = "secant") -> int:
    """Cost of a screened cell in passes of the model forward; a pass back, one for each state, counts as two.

    Deleting each gene takes as many passes as the cell has genes. Options are those of `screen`,
    of which ``rule`` changes nothing here.
    """
    return steps * (1 + 2 * n_states) + exact_runs


def _target_tensor(model: PreTrainedModel, states: dict[str, np.ndarray]) -> torch.Tensor:
    """States x width."""
    width = model.config.hidden_size
    for name, centre in states.items():
        if np.shape(centre) != (width,):
            raise DataError(
                f"state {name!r}: of shape {np.shape(centre)}, the model's is ({width},); embed it by this model"
            )
    if not states:
        raise DataError("states: none is given; give those that cells may move to (embeddings.state_centres)")
    return torch.tensor(np.stack(list(states.values()))).float().to(model.device)


class _ScreenedCell:
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
        """Cosine with each state when tokens are partially present (p of each, length); differentiable in p."""
        with attention_kernels.attention_implementation(self.part, "presence"):
            states = self.part.encoder(embedded, presence=presence).last_hidden_state[0]  # (length, width)
        weights = presence[self.positions, None]  # (genes, 1)
        return cosine_similarity((states[self.positions] * weights).sum(dim=0) / weights.sum(), self.targets, dim=-1)

    def shifts(self, steps: int, exact_runs: int, rule: str) -> np.ndarray:
        """Genes x states."""
        whole, absent, slope = self.by_secant() if rule == "secant" else self.by_gradient()
        return (absent + self.moving(steps, exact_runs, whole, slope)).double().cpu().numpy()

    def by_secant(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the unchanged cell: cosines, effect of each gene's absence (genes x states), gradient at embeddings."""
        trace: list[tuple[torch.Tensor, ...]] = []
        embedded = self.embedded([len(self.ids)]).requires_grad_()
        with attention_kernels.attention_implementation(self.part, "presence"):
            states = self.part.encoder(embedded, trace=trace).last_hidden_state[0, self.positions]  # (genes, width)
        mean, n = states.mean(dim=0), self.n
        cosines = cosine_similarity(mean, self.targets, dim=-1)
        outputs = [output for _, _, output in trace]
        slopes = [torch.autograd.grad(cosine, [embedded, *outputs], retain_graph=True) for cosine in cosines]
        with torch.no_grad():
            mean_without = (n * mean - states) / (n - 1)  # (genes, width): mean of the other genes
            change = cosine_similarity(mean_without[:, None], self.targets, dim=-1) - cosines  # (genes, states)
            for layer, (weights, value, output) in enumerate(trace, 1):
                absence = _absence_effects(weights, value, output, [slope[layer] for slope in slopes])
                change += absence[self.positions] * (n / (n - 1))
        return cosines.detach(), change, torch.stack([slope[0][0] for slope in slopes], dim=-1)

    def by_gradient(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The values of `by_secant` to first order in the presence."""
        presence = torch.ones(len(self.ids), device=self.ids.device, requires_grad=True)
        embedded = self.embedded([len(self.ids)]).requires_grad_()
        cosines = self.with_presence(embedded, presence)
        slopes = [torch.autograd.grad(cosine, [presence, embedded], retain_graph=True) for cosine in cosines]
        absent = -torch.stack([slope[0] for slope in slopes], dim=-1)[self.positions]  # (genes, states)
        return cosines.detach(), absent, torch.stack([slope[1][0] for slope in slopes], dim=-1)

    def slopes(self, starts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """F (starts x states) and its gradient at the embeddings (starts x length x width x states)."""
        embedded = self.embedded(starts).requires_grad_()
        cosines = self.cosines(embedded)  # (starts, states)
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
            path = _gradient_path(starts, (slopes[:, front:] * step).sum(dim=2), front)
            between = np.linspace(front, end, exact_runs + 2).round().astype(int)[:-1] if exact_runs else starts[:0]
            between = np.setdiff1d(between, starts)
            if len(between):
                values = torch.cat([self.values(between), values])
                starts = np.concatenate([between, starts])
            order = np.argsort(starts)
            path = _path_through_values(path, starts[order] - front, values[order])
        return path[: self.n] - whole

    def values(self, starts: np.ndarray) -> torch.Tensor:
        """F, starts x states, in batches of at most `batching.POSITIONS_PER_BATCH` positions."""
        size = max(batching.POSITIONS_PER_BATCH // len(self.ids), 1)
        return torch.cat([self.cosines(self.embedded(starts[a : a + size])) for a in range(0, len(starts), size)])


def _absence_effects(
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


def _gradient_path(starts: np.ndarray, slopes: torch.Tensor, front: int) -> torch.Tensor:
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


def _path_through_values(path: torch.Tensor, indices: np.ndarray, values: torch.Tensor) -> torch.Tensor:
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


def _attention_with_presence(
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


AttentionInterface.register("presence", _attention_with_presence)
