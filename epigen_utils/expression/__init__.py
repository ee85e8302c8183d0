"""Bulk expression: normalisation, designs, differential expression, calibration, sample quality, selection in a fold.

Prediction from expression is in `prediction`.
"""
