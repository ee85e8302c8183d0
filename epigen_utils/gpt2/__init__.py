"""Gene sentences and GPT-2 on them: encoder, 6-mers, model, classifier, states, attention, zero-shot, grid search: paper A, section III.

Comparison with baselines is in `prediction`, interpretation in `interpretation`.
"""
