"""What the page on verdicts says is what the code does: each of its rows and sentences is held by a test."""

import re

import pytest

from epigen_utils import paths
from epigen_utils.book import claims

PAGE = (paths.BOOK / "how-claims-are-judged.md").read_text()
CLAIMS = "tests/book/test_claims.py"
COVERAGE = "tests/book/test_coverage.py"

#: Sentence of the page -> the test that holds it.
HELD = {
    "A number agrees if it differs from the reported value by at most half a unit of the last printed digit; where the "
    "paper says *about*, by at most one unit of the last digit in the claim's row.": f"{CLAIMS}::test_agreement_of_a_number",
    "A number also agrees if the reported value lies in its 95% interval and the width of the interval is at most a "
    "tenth of the value.": f"{CLAIMS}::test_agreement_looks_at_the_interval",
    "If the reported value lies in a wider interval, the claim is undecided.": (
        f"{CLAIMS}::test_agreement_looks_at_the_interval"
    ),
    "Where the paper claims a bound, the whole interval must lie on the claimed side; if it lies on the other side "
    "the claim fails, and if it includes the bound the claim is undecided.": (
        f"{CLAIMS}::test_agreement_looks_at_the_interval"
    ),
    "For shares printed in a figure, the interval is the range of values that round to them.": (
        "tests/downstream/test_published_matrices.py::test_bounds_hold_for_every_matrix_that_rounds_to_the_printed_one"
    ),
    "No threshold of this book's own judges a paper.": (
        f"{CLAIMS}::test_without_a_line_of_the_paper_there_is_no_verdict"
    ),
    "Where the paper only says *above*, *more* or *less*, the bound is chance: 0.5, a difference of 0 or a ratio of "
    "1.": "tests/test_how_claims.py::test_chance_stands_for_words_alone",
    "A claim has one metric for each of its readings, and each metric and each quote belongs to one claim.": (
        f"{CLAIMS}::test_the_claims_themselves"
    ),
    "A claim about data is decided only by a run on the data set that it is about, which must be real, with the model"
    " that it names.": f"{CLAIMS}::test_the_model_is_part_of_what_is_needed",
    "Any other run gives *needs data*, and its number is a method check: it shows that the method runs, and says "
    "nothing about the claim.": f"{CLAIMS}::test_other_or_simulated_data_never_decide",
    "A gene that is not tested on a data set gives no method check there.": (
        f"{CLAIMS}::test_a_number_that_checks_nothing_is_left_out"
    ),
    "Simulated data never decide a claim.": f"{CLAIMS}::test_other_or_simulated_data_never_decide",
    "The model's name is that of the published weights that a run starts from, or is read from the model's own "
    "folder; a small or an untrained model cannot pass for a large or a pretrained one.": (
        f"{COVERAGE}::test_models_are_those_of_the_folders_that_a_run_reads"
    ),
    "The card of a claim that no profile of this book can decide says so.": (
        "tests/book/test_verdict_pages.py::test_a_claim_that_no_profile_can_decide_says_so"
    ),
    "Folds hold out whole donors wherever donors are known.": (
        "tests/stats/test_folds.py::test_whole_donors_are_held_out"
    ),
    "Every choice that uses labels is made inside the training fold.": (
        "tests/expression/test_fold_selection.py::test_genes_are_chosen_in_the_training_samples_alone"
    ),
    "With fewer than four donors no interval is given; the donors are shown, and the number alone decides nothing.": (
        f"{CLAIMS}::test_an_interval_that_cannot_be_had_leaves_a_claim_undecided"
    ),
    "A permutation p-value is $(b + 1) / (m + 1)$ {cite}`phipson2010permutation`, with $b$ of $m$ permutations at "
    "least as extreme, and twice the smaller one-sided value if deviations on both sides count.": (
        "tests/stats/test_permutation.py::test_two_sided_p_is_twice_the_smaller_tail_on_both_sides"
    ),
    "Simulated effects are drawn by seed, never copied from a paper.": (
        "tests/data/test_simulated_bulk.py::test_no_effect_is_a_value_of_table_one"
    ),
}


def test_every_sentence_is_held():
    assert re.findall(r"^- (.+)$", PAGE, re.M) == list(HELD)


@pytest.mark.parametrize("test", sorted(set(HELD.values())))
def test_what_holds_a_sentence_exists(test):
    file, _, name = test.partition("::")
    assert f"\ndef {name}(" in (paths.ROOT / file).read_text()


def test_chance_stands_for_words_alone():
    """A bound that judges a run is chance, or stands in the quote."""
    for claim in claims.read_claims().query("evidence == 'run'").itertuples():
        if claim.reported[:1] in ("<", ">"):
            bound = float(claim.reported[1:])
            assert bound in (0, 0.5, 1) or f"{bound:.0%}" in claim.quote, claim.id


def test_the_table_has_every_verdict_of_the_code_in_its_order():
    assert tuple(re.findall(r"^\| ([a-z ]+) \|", PAGE, re.M)[1:]) == claims.VERDICTS


def test_what_the_page_says_of_the_narrow_interval_is_the_constant():
    assert claims.NARROW == 0.1
