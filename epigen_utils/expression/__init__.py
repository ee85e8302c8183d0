"""Bulk expression: normalisation, designs, differential expression, its calibration, sample quality, selection inside a fold.

Prediction from expression is in `prediction`.
"""
