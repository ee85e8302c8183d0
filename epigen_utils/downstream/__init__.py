"""Uses of a pretrained Geneformer, with baselines: cell states, gene classes, in silico perturbation, screening."""
