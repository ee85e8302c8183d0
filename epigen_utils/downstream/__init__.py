"""Uses of a pretrained Geneformer: cell states, gene classes, in silico perturbation, screening, with baselines and leakage checks."""
