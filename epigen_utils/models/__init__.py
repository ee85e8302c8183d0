"""Networks, losses and training: Hugging Face classes by preset, attention kernels, the papers' losses, one door to the Trainer.

How genes become tokens is the business of `geneformer` and `gpt2`.
"""
