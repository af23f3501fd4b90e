"""What is wrong with a data set: the checks, their findings, the verdict and the report."""
