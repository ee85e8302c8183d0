# R's values for tests/deseq and tests/test_deseq_*.py, into data/reference/deseq2_units; README.md beside this file says what
# each file holds.
#   Rscript data/reference/deseq2_units.R PASILLA_COUNTS.tsv PASILLA_SAMPLES.csv [FOLDER]
# The two files are those of the registry's data set pasilla (epigen fetch pasilla). Written with R 4.2.2,
# DESeq2 1.38.3 and locfit 1.5-9.7 (Debian 12: r-bioc-deseq2).
suppressMessages(library(DESeq2))
library(locfit)
args <- commandArgs(trailingOnly = TRUE)
folder <- if (length(args) > 2) args[3] else "data/reference/deseq2_units"
dir.create(folder, showWarnings = FALSE, recursive = TRUE)

out <- function(x, name, digits = 8) {
  x <- as.data.frame(x)
  number <- vapply(x, is.double, TRUE)
  x[number] <- lapply(x[number], signif, digits)
  con <- gzfile(file.path(folder, paste0(name, ".csv.gz")), "w")
  write.csv(x, con, quote = FALSE)
  close(con)
}

single <- list()
keep <- function(name, value) for (i in seq_along(value)) single[[paste0(name, if (length(value) > 1) i)]] <<- value[[i]]

quiet <- function(expression) suppressMessages(suppressWarnings(expression))
data_set <- function(counts, design, table = samples) quiet(DESeqDataSetFromMatrix(counts, table[colnames(counts), , drop = FALSE], design))
run <- function(counts, design, table = samples, ...) quiet(DESeq(data_set(counts, design, table), quiet = TRUE, ...))
columns <- c("baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj")

# A cohort: 150 genes, 7 samples of two conditions, two batches in turn, a covariate. Genes 1 to 5 are without counts,
# seen in one sample, not seen in one condition, constant, and with one outlier.
set.seed(20)
n <- 14; m <- 150
samples <- data.frame(condition = factor(rep(c("a", "b"), each = 7)), batch = factor(rep(c("x", "y"), 7)), dose = round(rnorm(n), 3),
                      row.names = paste0("s", 1:n))
mean <- exp(rnorm(m, 4.5, 1.6)); disp <- (0.05 + 3 / mean) * exp(rnorm(m, 0, 0.7))
effect <- ifelse(runif(m) < 0.3, rnorm(m, 0, 1.2), 0)
depth <- exp(rnorm(n, 0, 0.4))
mu <- outer(mean, depth) * 2^(outer(effect, as.numeric(samples$condition) - 1.5) +
                              outer(rnorm(m, 0, 0.3), as.numeric(samples$batch) - 1.5))
counts <- matrix(rnbinom(n * m, mu = mu, size = 1 / disp), m, dimnames = list(paste0("g", 1:m), rownames(samples)))
counts[1, ] <- 0L; counts[2, ] <- 0L; counts[2, 4] <- 57L; counts[3, samples$condition == "b"] <- 0L; counts[4, ] <- 30L
counts[5, 3] <- 40000L
out(counts, "counts")

# size_factors
holes <- counts
holes[cbind(seq_len(m), rep(seq_len(n), length = m))] <- 0L
about <- samples
about$ratio <- estimateSizeFactorsForMatrix(counts)
about$poscounts <- sizeFactors(quiet(estimateSizeFactors(data_set(holes, ~ condition), type = "poscounts")))
out(about, "samples", 14)

# fitting, glm, dispersions, outliers: the columns of mcols and of results
fit_columns <- function(dds, test) {
  kept <- c("dispGeneEst", "dispFit", "dispMAP", "dispersion", "dispOutlier", "betaIter", "maxCooks", "deviance", "replace",
            resultsNames(dds), paste0("SE_", resultsNames(dds)))
  cbind(as.data.frame(test)[columns], as.data.frame(mcols(dds))[intersect(kept, names(mcols(dds)))])
}
batch <- run(counts, ~ batch + condition)
out(fit_columns(batch, results(batch, alpha = 0.05)), "fit_batch")
replaced <- run(counts, ~ condition)
out(fit_columns(replaced, results(replaced, alpha = 0.05))[c(columns, "dispersion", "replace")], "fit_replaced")
dose <- run(counts, ~ dose)
out(fit_columns(dose, results(dose, alpha = 0.05))[c("dispGeneEst", "dispersion", "betaIter", "dose", "SE_dose")], "fit_dose")
some <- 2:21
out(data.frame(cooks = assays(batch)[["cooks"]][some, ], hat = assays(batch)[["H"]][some, ], mu = assays(batch)[["mu"]][some, ]), "samples_batch")
keep("trend.batch", attr(dispersionFunction(batch), "coefficients"))
keep("scatter.batch", attr(dispersionFunction(batch), "varLogDispEsts"))
keep("prior_variance.batch", attr(dispersionFunction(batch), "dispPriorVar"))
for (df in c(1, 2, 3, 9)) {
  few <- estimateSizeFactors(data_set(counts[-1, c(1, 2, 8, 9, 10, 3:7, 11)[seq_len(2 + df)]], ~ condition))
  few <- few[rowSums(counts(few)) > 0, ]
  i <- seq_len(nrow(few))
  mcols(few)$dispGeneEst <- exp(-2 + 3 * sin(i^2))
  mcols(few)$allZero <- FALSE
  dispersionFunction(few) <- function(q) rep(exp(-2.2), length(q))
  keep(paste0("prior_variance.df", df), estimateDispersionsPriorVar(few))
  keep(paste0("genes.df", df), nrow(few))
}

# testing: thresholds, the likelihood-ratio test, and both filters
tests <- data.frame(row.names = rownames(counts))
for (alternative in c("greaterAbs", "lessAbs", "greater", "less")) {
  found <- results(batch, lfcThreshold = 0.5, altHypothesis = alternative)
  tests[paste0(c("stat.", "pvalue.", "padj."), alternative)] <- as.data.frame(found)[c("stat", "pvalue", "padj")]
}
tests$padj.unfiltered <- results(batch, independentFiltering = FALSE, cooksCutoff = FALSE)$padj
ratio <- quiet(nbinomLRT(batch, reduced = ~ batch, quiet = TRUE))
tests[c("stat.LRT", "pvalue.LRT")] <- as.data.frame(results(ratio))[c("stat", "pvalue")]
out(tests, "tests_batch")

# trends, transformation
local <- run(counts, ~ condition, fitType = "local", minReplicatesForReplace = Inf)
flat <- run(counts, ~ condition, fitType = "mean", minReplicatesForReplace = Inf)
out(data.frame(baseMean = mcols(local)$baseMean, dispGeneEst = mcols(local)$dispGeneEst, dispFit = mcols(local)$dispFit,
               row.names = rownames(local)), "trend_local")
keep("trend.mean", attr(dispersionFunction(flat), "mean"))
values <- list(few = vst(batch, nsub = 60), blind = varianceStabilizingTransformation(batch),
               design = varianceStabilizingTransformation(batch, blind = FALSE), local = varianceStabilizingTransformation(local, blind = FALSE),
               mean = varianceStabilizingTransformation(flat, blind = FALSE))
out(do.call(data.frame, lapply(values, function(x) assay(x)[2:9, ])), "vst")

x <- c(0.3, 0.5, 1.1, 1.7, 2.4, 3.3, 4.6, 7.9); y <- c(2.1, 0.7, 1.4, 0.35, 0.61, 0.2, 0.33, 0.11)
keep("gamma", coef(glm(y ~ I(1 / x), family = Gamma(link = "identity"), start = c(0.1, 1))))
keep("quantile", quantile(c(0.1, 0.7, 3, 3, 3, 12, 40), c(0, 0.1, 0.4, 0.62, 0.95, 1)))
u <- seq_len(50); v <- 40 + 30 * sin(u / 9) - u / 3; v[c(7, 31)] <- v[c(7, 31)] + 25
keep("lowess", lowess(u, v, f = 1 / 5)$y)
i <- 0:39; lx <- i / 6 + sin(i) / 3; ly <- cos(i / 5) + sin(i * i) / 4
smooth <- locfit(ly ~ lx, weights = exp(lx / 2))
keep("locfit", predict(smooth, data.frame(lx = c(-1, 0.2, 1, 2.5, 4, 5.5, 6.4, 8))))

# shrinkage: every eighth gene of pasilla as in deseq2.R, of which every eighth is kept
pasilla <- as.matrix(read.delim(args[1], row.names = 1))
pasilla <- pasilla[seq(1, nrow(pasilla), by = 8), ]
about <- read.csv(args[2], row.names = 1)
rownames(about) <- sub("fb$", "", rownames(about))
about$condition <- relevel(factor(about$condition), "untreated"); about$type <- factor(sub("-", "_", about$type))
shrunken <- run(pasilla, ~ type + condition, about)
shrunken <- as.data.frame(lfcShrink(shrunken, coef = "condition_treated_vs_untreated", type = "normal", quiet = TRUE))
out(shrunken[seq(1, nrow(shrunken), by = 8), c("log2FoldChange", "lfcSE")], "shrunken_pasilla", 8)

# Edge cases, of the first 60 genes: results of the first eight, or R's message.
C <- counts[1:60, ]
cases <- list(); messages <- list()
edge <- function(name, expression) {
  found <- tryCatch(quiet(expression), error = function(e) e)
  if (inherits(found, "error")) {
    messages[[name]] <<- gsub("[\",]", "", gsub("\\s+", " ", trimws(conditionMessage(found))))
  } else {
    table <- as.data.frame(found)
    table <- table[seq_len(min(8, nrow(table))), columns]
    cases[[name]] <<- cbind(case = name, gene = rownames(table), table)
  }
}
three <- samples
three$group <- factor(rep(c("p", "q", "r"), c(5, 5, 4)))
silent <- C; silent[7, three$group != "r"] <- 0L
empty_cell <- C; empty_cell[7, samples$condition == "b" & samples$batch == "y"] <- 0L
times <- function(rows, factor) { x <- C * 1; x[rows, ] <- x[rows, ] * factor; x }
with <- function(...) cbind(samples, ...)
few <- c(1, 2, 8)
genewise <- function(counts, table = samples) {
  dds <- estimateDispersionsGeneEst(estimateSizeFactors(data_set(counts, ~ condition, table)), quiet = TRUE)
  dispersions(dds) <- mcols(dds)$dispGeneEst
  results(nbinomWaldTest(dds, quiet = TRUE), alpha = 0.05)
}
even <- matrix(50L + rep(c(-3L, -1L, 0L, 2L, 1L, 3L, -2L, 0L), each = 40) + rep(1:40, 8), 40, dimnames = list(paste0("g", 1:40), paste0("s", c(1:4, 8:11))))
huge <- C; huge[6, ] <- as.integer(pmin(huge[6, ] * 1e7, 2e9))
nowhere <- C; nowhere[cbind(1:60, rep(1:14, length = 60))] <- 0L
no_sample <- C; no_sample[, 1] <- 0L
constant <- C[6:20, ]; constant[] <- 1:15
low <- C; low[7:8, ] <- 0L; low[7, 4] <- 1L; low[8, c(2, 9)] <- 2L
lone <- silent; lone[7, 1] <- 5000L
wild <- C
for (k in 6:60) wild[k, 1 + k %% 14] <- as.integer(wild[k, 1 + k %% 14] * (1 + (2 * k) %% 17) + 5)
wild <- wild[c(13, 1:12, 14:60), ]
cell <- !(samples$condition == "b" & samples$batch == "y")

edge("no residual degrees", results(run(C[, few], ~ batch + condition)))
edge("one residual degree", results(run(C[, few], ~ condition), alpha = 0.05))
edge("one gene", results(run(C[6, , drop = FALSE], ~ condition)))
edge("one gene: gene-wise", genewise(C[6, , drop = FALSE]))
edge("two genes", results(run(C[6:7, ], ~ condition)))
edge("two genes: mean trend", results(run(C[6:7, ], ~ condition, fitType = "mean"), alpha = 0.05))
edge("three genes: mean trend", results(run(C[6:8, ], ~ condition, fitType = "mean"), alpha = 0.05))
edge("all counts equal", results(run(C * 0L + 7L, ~ condition)))
edge("all genes constant", results(run(constant, ~ condition)))
edge("all counts zero", results(run(C * 0L, ~ condition)))
edge("counts of 1e9", results(run(huge, ~ condition), alpha = 0.05))
edge("counts above 2^31", results(run(times(6, 1e8), ~ condition)))
edge("one sample with counts", results(run(C, ~ condition, minReplicatesForReplace = Inf), alpha = 0.05))
edge("no gene everywhere", results(run(nowhere, ~ condition)))
edge("no gene everywhere: poscounts", results(run(nowhere, ~ condition, sfType = "poscounts"), alpha = 0.05))
edge("not integers", results(run(C + 0.3, ~ condition)))
edge("not integers: rounded", results(run(round(C * 1.1 + 0.3), ~ condition), alpha = 0.05))
edge("negative", results(run(replace(C, 6, -1L), ~ condition)))
edge("missing count", results(run(replace(C, 6, NA), ~ condition)))
edge("a sample without counts", results(run(no_sample, ~ condition)))
edge("a sample without counts: poscounts", results(run(no_sample, ~ condition, sfType = "poscounts")))
edge("nothing in the two groups", results(run(silent, ~ group, three), contrast = c("group", "q", "p"), alpha = 0.05))
edge("nothing in the two groups: by name", results(run(silent, ~ group, three), name = "group_q_vs_p", alpha = 0.05))
edge("nothing in one cell: interaction", results(run(empty_cell, ~ batch * condition), alpha = 0.05))
edge("no samples in a cell", results(run(C[, cell], ~ batch * condition)))
edge("constant covariate", results(run(C, ~ k + condition, with(k = 3.5))))
edge("collinear columns", results(run(C, ~ dose + twice + condition, with(twice = 2 * samples$dose + 1))))
edge("condition twice", results(run(C, ~ other + condition, with(other = samples$condition))))
odd <- samples; levels(odd$condition) <- c("wild type/+", "knock-out (5%)")
edge("odd names", results(run(C, ~ condition, odd), contrast = c("condition", "knock-out (5%)", "wild type/+"), alpha = 0.05))
edge("missing covariate", results(run(C, ~ dose + condition, transform(samples, dose = replace(dose, 3, NA)))))
edge("target missing", results(run(C, ~ condition), contrast = c("condition", "z", "a")))
edge("level with itself", results(run(C, ~ condition), contrast = c("condition", "a", "a")))
edge("not in the design", results(run(C, ~ condition), contrast = c("batch", "y", "x")))
edge("all weights zero", results(run(C, ~ condition), contrast = c(0, 0)))
edge("reduced not nested", results(run(C, ~ batch + condition, test = "LRT", reduced = ~ dose)))
edge("reduced as large", results(run(C, ~ batch + condition, test = "LRT", reduced = ~ batch + condition)))
edge("lessAbs at zero", results(run(C, ~ condition), altHypothesis = "lessAbs"))
edge("negative threshold", results(run(C, ~ condition), lfcThreshold = -1))
edge("less variable than Poisson", results(run(even, ~ condition)))
edge("less variable than Poisson: gene-wise", genewise(even))
edge("gene-wise", genewise(C))
edge("replaced from 3 on", results(run(C, ~ condition, minReplicatesForReplace = 3), alpha = 0.05))
edge("intercept alone", results(run(low, ~ 1), name = "Intercept", alpha = 0.05))
edge("an outlier is all of a group", results(run(lone, ~ group, three, minReplicatesForReplace = 3), contrast = c("group", "q", "p"), alpha = 0.05))
edge("replaced for a likelihood ratio", results(run(wild, ~ batch + condition, test = "LRT", reduced = ~ batch, minReplicatesForReplace = 3), alpha = 0.05))
edge("replaced from 2 on", results(run(C, ~ condition, minReplicatesForReplace = 2)))
edge("negative size factors", { dds <- data_set(C, ~ condition); sizeFactors(dds) <- rep(-1, n); results(DESeq(dds)) })
edge("far covariate", results(run(C, ~ dose, transform(samples, dose = dose + 1e4))))
out(do.call(rbind, unname(cases)), "edge_cases")
out(data.frame(message = unlist(messages)), "edge_refusals")

# What data/upstream_deseq2.csv says of R and of PyDESeq2.
all <- as.matrix(read.delim(args[1], row.names = 1))
all <- quiet(estimateSizeFactors(DESeqDataSetFromMatrix(all, about[colnames(all), ], ~ type + condition)))
searched <- c("FBgn0067861", "FBgn0038237", "FBgn0031664", "FBgn0037376", "FBgn0039503", "FBgn0052640")
keep("genewise", mcols(estimateDispersionsGeneEst(all[searched, ], quiet = TRUE))$dispGeneEst)
design(all) <- ~ 1
keep("flat", mcols(estimateDispersionsGeneEst(all["FBgn0051547", ], quiet = TRUE))$dispGeneEst)
five <- pasilla[seq(1, nrow(pasilla), by = 4), c("treated1", "treated2", "untreated1", "untreated2", "untreated3")]
five <- run(five, ~ condition, about)
keep("prior_variance.five", attr(dispersionFunction(five), "dispPriorVar"))
forgotten <- as.data.frame(lfcShrink(replaced, coef = "condition_b_vs_a", type = "normal", quiet = TRUE))[5, ]
keep("forgotten", c(forgotten$log2FoldChange, forgotten$lfcSE))
spared <- counts
spared[20, ] <- c(9L, 11L, 10L, 400L, 8L, 12L, 10L, 900L, 1100L, 1000L, 950L, 1050L, 1000L, 980L)
keep("spared", c(results(run(spared, ~ condition, minReplicatesForReplace = Inf))$pvalue[20],
                 results(run(spared, ~ batch + condition, minReplicatesForReplace = Inf))$pvalue[20]))
covariate <- function(change) as.data.frame(results(run(counts, ~ dose, transform(samples, dose = change(dose)))))
keep("scaled", c(dose = covariate(identity)$pvalue[5], times = covariate(function(x) x * 100)$pvalue[5]))
for (shift in c(0, 1000)) {
  found <- covariate(function(x) x + shift)
  keep(paste0("shifted.", shift, "."), c(found$log2FoldChange[6], found$lfcSE[6], sum(found$padj < 0.1, na.rm = TRUE)))
}
for (alpha in c(0.03, 0.05, 0.1)) {
  found <- results(replaced, alpha = alpha)
  keep(paste0("filter.", alpha, "."), c(metadata(found)$filterThreshold, sum(!is.na(found$padj)), sum(found$padj < alpha, na.rm = TRUE)))
}
means <- exp(seq(2, 8, length = 80)); z <- c(-1.2, -0.4, 0.5, 1.1, -1, 0.3, -0.2, 0.9)
rising <- round(means * (1 + outer(sqrt(1 / means + 0.01 * means^0.4), z) * (1 + 0.3 * sin(seq_len(80)))))
dimnames(rising) <- list(paste0("g", 1:80), paste0("s", c(1:4, 8:11)))
found <- run(rising, ~ condition)
keep("rising", mcols(found)$dispFit[c(1, 40, 80)])
stopifnot(attr(dispersionFunction(found), "fitType") == "local")

out(data.frame(value = unlist(single)), "single", 15)
cat(R.version.string, as.character(packageVersion("DESeq2")), as.character(packageVersion("locfit")), "\n")
