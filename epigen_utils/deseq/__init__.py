"""The DESeq2 engine (Love, Huber and Anders 2014): R's estimates for all genes at once, by torch, numpy and scipy."""
