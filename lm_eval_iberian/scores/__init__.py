"""lm_eval's results to the paper's averages: benchmarks, scores, intervals, tables."""
