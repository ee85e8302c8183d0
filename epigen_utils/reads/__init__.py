"""FASTQ files to counts: sample sheet, references, the pipeline's steps, tool reports, counts, simulated reads: paper A, section IV.B.

The order of jobs stands in `workflow/reads.smk`.
"""
