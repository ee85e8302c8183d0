# What R DESeq2 draws at random, as tables: the prior variance of dispersions with three or fewer residual degrees of
# freedom (manual page of estimateDispersionsPriorVar; Love, Huber and Anders 2014, Methods).
#   Rscript data/reference/deseq2_tables.R FOLDER        called by deseq2_tables.py, which packs the tables
# There the spread of the observed log residuals is matched to simulated ones, the sum of the logarithm of a chi-squared
# variable (sampling) and a normal one (prior), for 200 variances of the normal one. The draws have a fixed seed, so
# that their histograms are constants, and the smoothing of the 200 divergences is linear in them, so that it is a matrix.
args <- commandArgs(trailingOnly = TRUE)
out <- function(x, name) {
  con <- gzfile(file.path(args[1], paste0(name, ".csv.gz")), "w")
  write.table(x, con, sep = ",", row.names = FALSE, col.names = FALSE, quote = FALSE)
  close(con)
}
exact <- function(x) {
  text <- formatC(x, digits = 17, format = "g")
  matrix(trimws(text), nrow(x), ncol(x))
}

breaks <- -20:20 / 2
grid <- seq(0, 8, length = 200)
fine <- seq(0, 8, length = 1000)

for (df in 1:3) {
  set.seed(2)
  counts <- sapply(grid, function(x) {
    draws <- log(rchisq(1e4, df)) + rnorm(1e4, 0, sqrt(x)) - log(df)
    draws <- draws[draws > min(breaks) & draws < max(breaks)]
    hist(draws, breaks = breaks, plot = FALSE)$counts
  })
  out(t(counts), paste0("counts_", df))
}

# A loess curve is computed at the vertices of a tree, value and slope, and interpolated between them by cubics. The
# order of the vertices is that in which the tree was cut: the two ends of the widened range, then the cuts.
fitted <- function(y) loess(y ~ x, data.frame(x = grid, y = y), span = 0.2)
at_vertices <- function(y) matrix(fitted(y)$kd$vval, nrow = 2)
tree <- fitted(grid)$kd
vertices <- c(tree$vert, tree$xi[tree$a != 0])
order_of_vertices <- order(vertices)
units <- diag(length(grid))
probes <- lapply(seq_along(grid), function(i) at_vertices(units[, i])[, order_of_vertices])
out(exact(matrix(sort(vertices))), "vertices")
out(exact(sapply(probes, function(p) p[1, ])), "values")
out(exact(sapply(probes, function(p) p[2, ])), "slopes")

# What the packing is checked by: curves of random numbers, and of a bent line with noise as the divergences are.
set.seed(1)
random <- cbind(replicate(8, runif(200)), replicate(8, (grid - runif(1, 0, 8))^2 + rnorm(200, 0, 0.1)))
out(exact(random), "random")
out(exact(sapply(seq_len(ncol(random)), function(i) predict(fitted(random[, i]), data.frame(x = fine)))), "smoothed")

# And by DESeq2 itself: the prior variance of small data sets with 1, 2 and 3 residual degrees of freedom.
suppressMessages(library(DESeq2))
black_box <- function(df, scale, seed) {
  set.seed(seed)
  genes <- 3000
  samples <- data.frame(group = factor(c("a", "b", rep(c("a", "b"), length = df))))
  mean <- exp(rnorm(genes, 5, 1.5))
  dispersion <- (0.05 + 2 / mean) * exp(rnorm(genes, 0, scale))
  counts <- matrix(as.integer(rnbinom(genes * nrow(samples), mu = mean, size = 1 / dispersion)), genes)
  dds <- DESeqDataSetFromMatrix(counts, samples, ~group)
  dds <- estimateDispersionsGeneEst(estimateSizeFactors(dds), quiet = TRUE)
  dds <- suppressMessages(estimateDispersionsFit(dds))
  variance <- estimateDispersionsPriorVar(dds)
  list(variance = variance, df = df, genewise = mcols(dds)$dispGeneEst, trend = mcols(dds)$dispFit)
}
for (df in 1:3) for (i in 1:6) {
  found <- black_box(df, scale = c(0, 0.3, 0.6, 1, 1.5, 2)[i], seed = 10 * df + i)
  name <- paste0("black_box_", df, "_", i)
  out(exact(cbind(found$genewise, found$trend)[!is.na(found$trend), ]), name)
  out(exact(matrix(found$variance)), paste0(name, "_variance"))
}
cat(R.version.string, as.character(packageVersion("DESeq2")), "\n")
