"""Cells as ranked genes: vocabularies, rank value encoding, curation, masked genes, embeddings, attention: paper B, sections 1 and 2.

What a pretrained model is used for is in `downstream`.
"""
