"""FASTQ files to counts: sample sheet, references, pipeline, tool reports, simulated reads: paper A, section IV.B.

The order of jobs stands in `workflow/reads.smk`.
"""
