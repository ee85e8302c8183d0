# R DESeq2 on a folder of cases, for tests/fuzz_deseq.py; written from DESeq2's manual pages and vignette.
#   Rscript data/reference/deseq2_cases.R FOLDER
# A case is a sub-folder with
#   counts.csv                  genes x samples, gene ids in the first column
#   normalization_factors.csv   of the same shape, optional
#   samples.csv                 sample ids in the first column, then covariates
#   case.json                   columns: for each covariate {"kind": "factor", "levels": [...]} or {"kind": "numeric"};
#     design (a formula); test (Wald, LRT); reduced (a formula, for LRT); contrast (three strings, or an object of
#     weights by the names of resultsNames, or absent); alpha; lfcThreshold; altHypothesis; sfType (ratio, poscounts);
#     sizeFactors (numbers, optional); fitType (parametric, mean, local); independentFiltering; cooksCutoff;
#     minReplicatesForReplace (null: never); vst (none, vst, full) and vstBlind; shrink (none, normal) of the
#     contrast or of a coefficient, shrinkCoef
# and gets
#   results.csv        the columns of results() and the intermediate ones of mcols(), 17 significant digits
#   size_factors.csv   per sample (without normalization factors)
#   fit.json           the dispersion function, prior, resultsNames, filter threshold, seconds of each step
#   vst.csv, shrink.csv where asked, or their condition's message in fit.json
#   messages.txt       warnings and messages
#   error.txt          instead, if DESeq2 refuses: the condition's message
# session.json, in the folder itself, has the versions.
suppressMessages(library(DESeq2))
library(jsonlite)

or <- function(x, default) if (is.null(x)) default else x

exact <- function(x) {
  x <- as.data.frame(x)
  number <- vapply(x, is.double, TRUE)
  x[number] <- lapply(x[number], function(column) {
    text <- trimws(formatC(column, digits = 17, format = "g"))
    ifelse(is.na(column), "NA", text)
  })
  x
}

write_table <- function(x, path, label) {
  table <- cbind(setNames(data.frame(rownames(x)), label), exact(x))
  write.csv(table, path, row.names = FALSE, quote = FALSE)
}

read_matrix <- function(path) {
  as.matrix(read.csv(path, row.names = 1, check.names = FALSE, colClasses = c("character"), na.strings = "NA"))
}

read_numbers <- function(path) {
  text <- read_matrix(path)
  matrix(as.numeric(text), nrow(text), ncol(text), dimnames = dimnames(text))
}

read_samples <- function(folder, columns) {
  table <- read.csv(file.path(folder, "samples.csv"), row.names = 1, check.names = FALSE, colClasses = "character",
                    na.strings = "")
  for (name in names(columns)) {
    column <- columns[[name]]
    table[[name]] <- if (column$kind == "factor") factor(table[[name]], unlist(column$levels)) else as.numeric(table[[name]])
  }
  table
}

data_set <- function(folder, case) {
  counts <- read_numbers(file.path(folder, "counts.csv"))
  samples <- read_samples(folder, case$columns)
  dds <- DESeqDataSetFromMatrix(counts, samples[colnames(counts), , drop = FALSE], as.formula(case$design))
  factors <- file.path(folder, "normalization_factors.csv")
  if (file.exists(factors)) {
    normalizationFactors(dds) <- read_numbers(factors)
  } else if (!is.null(case$sizeFactors)) {
    sizeFactors(dds) <- as.numeric(unlist(case$sizeFactors))
  }
  dds
}

# A named object of weights becomes the numeric vector that results() takes, in the order of resultsNames.
contrast_of <- function(dds, contrast) {
  if (is.null(names(contrast))) return(as.character(unlist(contrast)))
  weights <- setNames(numeric(length(resultsNames(dds))), resultsNames(dds))
  unknown <- setdiff(names(contrast), names(weights))
  if (length(unknown)) stop("HARNESS: no coefficient ", paste(unknown, collapse = ", "), " among ",
                            paste(names(weights), collapse = ", "))
  weights[names(contrast)] <- as.numeric(unlist(contrast))
  unname(weights)
}

fit <- function(dds, case) {
  replicates <- if ("minReplicatesForReplace" %in% names(case)) or(case$minReplicatesForReplace, Inf) else 7
  arguments <- list(dds, test = case$test, fitType = case$fitType, sfType = case$sfType, betaPrior = FALSE,
                    minReplicatesForReplace = replicates)
  if (case$test == "LRT") arguments$reduced <- as.formula(case$reduced)
  do.call(DESeq, arguments)
}

# Steps of the reduced model's iteration, which nbinomLRT does not keep: the reduced design fitted alone, with the same
# dispersions and counts.
reduced_iterations <- function(dds, case) {
  alone <- dds
  if ("replaceCounts" %in% assayNames(dds)) counts(alone) <- assay(dds, "replaceCounts")
  design(alone) <- as.formula(case$reduced)
  mcols(nbinomWaldTest(alone, quiet = TRUE))$betaIter
}

test <- function(dds, case) {
  arguments <- list(dds, alpha = case$alpha, lfcThreshold = case$lfcThreshold, altHypothesis = case$altHypothesis,
                    independentFiltering = case$independentFiltering)
  if (!is.null(case$contrast)) arguments$contrast <- contrast_of(dds, case$contrast)
  if (!case$cooksCutoff) arguments$cooksCutoff <- FALSE
  do.call(results, arguments)
}

# With the steps of the iteration, which lfcShrink does not give: those of the same model by nbinomWaldTest.
shrunken <- function(dds, case, res) {
  found <- if (!is.null(case$shrinkCoef)) lfcShrink(dds, coef = case$shrinkCoef, res = res, type = case$shrink)
           else lfcShrink(dds, contrast = contrast_of(dds, case$contrast), res = res, type = case$shrink)
  again <- nbinomWaldTest(dds, betaPrior = TRUE, modelMatrixType = "standard", quiet = TRUE)
  cbind(as.data.frame(found), betaIter = mcols(again)$betaIter)
}

transformed <- function(dds, case) {
  f <- if (case$vst == "full") varianceStabilizingTransformation else vst
  assay(f(dds, blind = or(case$vstBlind, TRUE), fitType = case$fitType))
}

run_case <- function(folder) {
  case <- fromJSON(file.path(folder, "case.json"), simplifyVector = FALSE)
  seconds <- list()
  timed <- function(name, expression) {
    started <- proc.time()[["elapsed"]]
    value <- force(expression)
    seconds[[name]] <<- proc.time()[["elapsed"]] - started
    value
  }
  dds <- timed("read", data_set(folder, case))
  start <- dds
  dds <- timed("fit", fit(dds, case))
  res <- timed("results", test(dds, case))

  table <- as.data.frame(res)
  kept <- c("dispGeneEst", "dispFit", "dispMAP", "dispersion", "dispOutlier", "dispGeneIter", "dispIter", "betaConv",
            "fullBetaConv", "reducedBetaConv", "betaIter", "maxCooks", "replace")
  if (case$test == "LRT") table$reducedBetaIter <- reduced_iterations(dds, case)
  for (name in intersect(kept, names(mcols(dds)))) table[[name]] <- mcols(dds)[[name]]
  write_table(table, file.path(folder, "results.csv"), "gene")
  if (!is.null(sizeFactors(dds))) {
    write_table(data.frame(sizeFactor = sizeFactors(dds), row.names = colnames(dds)),
                file.path(folder, "size_factors.csv"), "sample")
  }

  trend <- dispersionFunction(dds)
  about <- list(
    fitType = attr(trend, "fitType"), coefficients = as.list(attr(trend, "coefficients")),
    mean = attr(trend, "mean"), dispPriorVar = attr(trend, "dispPriorVar"),
    varLogDispEsts = attr(trend, "varLogDispEsts"), resultsNames = resultsNames(dds),
    filterThreshold = unname(metadata(res)$filterThreshold)
  )
  if (or(case$vst, "none") != "none") tryCatch(
    write_table(timed("vst", transformed(start, case)), file.path(folder, "vst.csv"), "gene"),
    error = function(e) about$vstError <<- conditionMessage(e)
  )
  if (or(case$shrink, "none") != "none") tryCatch(
    write_table(timed("shrink", shrunken(dds, case, res)), file.path(folder, "shrink.csv"), "gene"),
    error = function(e) about$shrinkError <<- conditionMessage(e)
  )
  about$seconds <- seconds
  writeLines(toJSON(about, auto_unbox = TRUE, digits = NA, null = "null", pretty = TRUE), file.path(folder, "fit.json"))
}

note <- function(folder, kind, condition) {
  cat(kind, ": ", conditionMessage(condition), "\n", sep = "", file = file.path(folder, "messages.txt"), append = TRUE)
}

folder <- commandArgs(trailingOnly = TRUE)[1]
for (case in sort(dirname(Sys.glob(file.path(folder, "*", "case.json"))))) {
  tryCatch(
    withCallingHandlers(
      run_case(case),
      warning = function(w) { note(case, "warning", w); invokeRestart("muffleWarning") },
      message = function(m) { note(case, "message", m); invokeRestart("muffleMessage") }
    ),
    error = function(e) writeLines(conditionMessage(e), file.path(case, "error.txt"))
  )
}
versions <- list(R = R.version.string, DESeq2 = as.character(packageVersion("DESeq2")),
                 locfit = as.character(packageVersion("locfit")))
writeLines(toJSON(versions, auto_unbox = TRUE, pretty = TRUE), file.path(folder, "session.json"))
