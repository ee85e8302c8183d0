"""The examples in docstrings run, and give what they show."""

import doctest
import importlib
import inspect

import numpy as np
import pytest

from epigen_utils import paths

#: Functions and classes that people call from their own notebooks, by module.
DOORS = {
    "data.datasets": ["load"],
    "data.schema": ["check"],
    "data.orthologs": ["humanise"],
    "expression.normalisation": ["size_factors", "vst", "tpm", "top_variable_genes"],
    "expression.differential": ["deseq"],
    "geneformer.encoding": ["RankValueEncoder"],
    "gpt2.sentences": ["GeneSentenceEncoder"],
    "models.presets": ["preset", "build"],
    "models.losses": ["distillation_loss", "attention_aligned_hybrid_loss"],
    "stats.folds": ["donor_folds", "cross_validate"],
    "stats.permutation": ["permutation_test"],
    "stats.intervals": ["student_interval", "bootstrap_mean", "auc_interval", "nadeau_bengio_interval"],
    "stats.two_classes": ["roc_auc"],
    "interpretation.alignment": ["baam"],
    "downstream.perturbation": ["delete"],
    "downstream.screening": ["screen"],
    "book.claims": ["table"],
}
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
FILES = sorted(path for path in paths.PACKAGE.rglob("[a-z]*.py") if ">>> " in path.read_text())
WITH_EXAMPLES = [".".join(path.relative_to(paths.PACKAGE).with_suffix("").parts) for path in FILES]


def module(name: str):
    return importlib.import_module(f"epigen_utils.{name}")


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_give_what_they_show(name):
    with np.printoptions(precision=4, suppress=True):
        results = doctest.testmod(module(name), optionflags=FLAGS)
    assert results.failed == 0
    assert results.attempted > 0


@pytest.mark.parametrize(("name", "door"), [(name, door) for name, doors in DOORS.items() for door in doors])
def test_every_door_has_an_example(name, door):
    docstring = inspect.getdoc(getattr(module(name), door))
    assert "Examples\n--------\n>>> " in docstring
