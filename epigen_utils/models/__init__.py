"""Networks, losses and training: Hugging Face classes by preset, kernels, losses, one entry point to the Trainer.

How genes become tokens is the business of `geneformer` and `gpt2`.
"""
