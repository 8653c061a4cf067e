"""batchgen beside what people would use instead: one job, one local server. See README.md."""
