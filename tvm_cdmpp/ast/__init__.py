"""What a program looks like to a predictor: leaves, compact ASTs, batches, positions."""
