import threading

import pytest
import torch

from epigen_utils.deseq import parts


@pytest.mark.parametrize(("n_genes", "size"), [(1, 4), (10, 4), (1000, 2**10), (5, 2**17)])
def test_every_gene_is_in_one_part_that_fits(monkeypatch, n_genes, size):
    monkeypatch.setitem(parts.SIZE, "cpu", size)
    genes = torch.arange(100, 100 + n_genes)
    found = parts.split(genes, 3)
    assert torch.cat(found).tolist() == genes.tolist()
    assert all((len(part) - 1) * 3 <= size for part in found), "no more than a gene above"


def test_no_genes_are_no_parts():
    assert parts.split(torch.arange(0), 8) == []


def test_each_part_is_worked_on_once_on_threads_that_are_given(monkeypatch):
    monkeypatch.setitem(parts.SIZE, "cpu", 64)
    before, seen, names = torch.get_num_threads(), [], set()

    def work(part):
        seen.extend(part.tolist())
        names.add(threading.current_thread().name)
        assert torch.get_num_threads() == 1

    torch.set_num_threads(2)
    try:
        with parts.one_thread_each():
            parts.for_each(work, parts.split(torch.arange(300), 2))
        assert torch.get_num_threads() == 2, "what it was"
    finally:
        torch.set_num_threads(before)
    assert sorted(seen) == list(range(300))
    assert threading.current_thread().name not in names


def test_an_error_in_a_part_is_raised_and_threads_come_back(monkeypatch):
    monkeypatch.setitem(parts.SIZE, "cpu", 64)
    before = torch.get_num_threads()

    def fail(part):
        raise ValueError(f"of {len(part)}")

    with pytest.raises(ValueError, match="of"), parts.one_thread_each():
        parts.for_each(fail, parts.split(torch.arange(300), 2))
    assert torch.get_num_threads() == before


def test_few_counts_of_another_device_are_left_to_the_cpu():
    assert parts.are_few(torch.empty(8, parts.FEW // 8, device="meta"))
    assert not parts.are_few(torch.empty(8, parts.FEW // 8 + 1, device="meta"))
    assert not parts.are_few(torch.empty(8, 1))


def test_parts_of_another_device_are_worked_on_in_one_thread():
    before, names = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        with parts.one_thread_each():
            parts.for_each(
                lambda part: names.append(threading.current_thread().name),
                [torch.empty(5, device="meta"), torch.empty(4, device="meta")],
            )
    finally:
        torch.set_num_threads(before)
    assert names == [threading.current_thread().name] * 2
