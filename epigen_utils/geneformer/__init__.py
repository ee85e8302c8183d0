"""Cells as ranked genes: vocabularies, encoding, curation, masked genes, attention: paper B, sections 1 and 2.

What a pretrained model is used for is in `downstream`.
"""
