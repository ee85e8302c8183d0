# Reference values of R DESeq2, for tests/expression.
#   Rscript data/reference/deseq2.R PASILLA_COUNTS.tsv PASILLA_SAMPLES.csv
# The two files are those of the registry's data set pasilla (epigen fetch pasilla). Written with R 4.2.2,
# DESeq2 1.38.3 (Debian 12: r-bioc-deseq2). Every eighth gene is taken, to keep the files small.
suppressMessages(library(DESeq2))
args <- commandArgs(trailingOnly = TRUE)
out <- function(x, name) {
  con <- gzfile(file.path("data/reference", paste0(name, ".csv.gz")), "w")
  write.csv(format(as.data.frame(x), digits = 15), con, quote = FALSE)
  close(con)
}

counts <- as.matrix(read.csv("data/table_two.csv", row.names = 1, check.names = FALSE))
factors <- estimateSizeFactorsForMatrix(counts)
write.csv(data.frame(sample = names(factors), size_factor = format(factors, digits = 15)),
          "data/reference/table_two_size_factors.csv", row.names = FALSE, quote = FALSE)

counts <- as.matrix(read.delim(args[1], row.names = 1))
counts <- counts[seq(1, nrow(counts), by = 8), ]
samples <- read.csv(args[2], row.names = 1)
rownames(samples) <- sub("fb$", "", rownames(samples))
samples <- samples[colnames(counts), c("condition", "type")]
samples$condition <- relevel(factor(samples$condition), "untreated")
samples$type <- factor(sub("-", "_", samples$type))
dds <- DESeqDataSetFromMatrix(counts, samples, ~ type + condition)
dds <- DESeq(dds, quiet = TRUE)
out(data.frame(size_factor = sizeFactors(dds)), "pasilla_size_factors")
out(results(dds, contrast = c("condition", "treated", "untreated"), alpha = 0.05), "pasilla_results")
out(results(dds, contrast = c("condition", "treated", "untreated"), alpha = 0.05,
            independentFiltering = FALSE, cooksCutoff = FALSE), "pasilla_results_unfiltered")
out(data.frame(dispersion = dispersions(dds), trend = mcols(dds)$dispFit, genewise = mcols(dds)$dispGeneEst), "pasilla_dispersions")
out(assay(varianceStabilizingTransformation(dds, blind = TRUE)), "pasilla_vst_blind")
out(assay(varianceStabilizingTransformation(dds, blind = FALSE)), "pasilla_vst_design")
out(assay(vst(dds, blind = TRUE)), "pasilla_vst_1000_genes")
cat(R.version.string, as.character(packageVersion("DESeq2")), nrow(counts), "genes\n")
