"""Statistics that know no biology: folds, permutation tests, intervals, scores, clustering, projections, power.

Nothing here knows what a gene or a sentence is.
"""
