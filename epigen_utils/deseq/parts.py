"""Genes in parts: how large one is, and one thread for each."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

#: Counts (samples x genes) that are worked on at once, by the type of device; a thread has its own part.
SIZE = {"cpu": 2**18, "cuda": 2**24}

#: Counts up to which a GPU's work is left to one core: to start an operation there takes longer than to do it here.
FEW = 2**13

#: Bytes of a block that is taken and freed before the work: the largest up to which the GNU C library then keeps what
#: is freed, instead of returning it to the system, whose fresh pages took a quarter of the time.
KEPT = 2**25 - 2**12

_n_threads = contextvars.ContextVar("n_threads", default=1)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Give each part to one of the threads that torch has, whose operations keep to it.

    On tables of a part's size several threads for one operation wait longer than they work. Also a decorator.
    """
    torch.empty(KEPT, dtype=torch.uint8)
    n_threads = torch.get_num_threads()
    token = _n_threads.set(n_threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        _n_threads.reset(token)


def split(genes: Tensor, n_samples: int) -> list[Tensor]:
    """Positions of genes in parts of about the same size, as many as fit the work space and occupy the threads."""
    if not len(genes):
        return []
    n_parts = -(-len(genes) * n_samples // SIZE[genes.device.type])
    if genes.device.type == "cpu" and len(genes) * n_samples > SIZE["cpu"] // 8:
        n_parts = -(-n_parts // _n_threads.get()) * _n_threads.get()
    return list(genes.tensor_split(min(n_parts, len(genes))))


def are_few(counts: Tensor) -> bool:
    """Whether counts on a GPU, samples x genes, are so few that the CPU is faster with them."""
    return counts.device.type != "cpu" and counts.numel() <= FEW


def for_each(function: Callable[[Tensor], None], parts: list[Tensor]) -> None:
    """Call a function with each part; on a GPU, which works on one at a time, all from one thread."""
    n_threads = _n_threads.get()
    if n_threads == 1 or len(parts) < 2 or parts[0].device.type != "cpu":
        for part in parts:
            function(part)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(function, parts))
