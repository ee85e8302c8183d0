"""Gene sentences and GPT-2 on them: encoder, 6-mers, classifier, states, attention, zero-shot: paper A, section III.

Comparison with baselines is in `prediction`, interpretation in `interpretation`.
"""
