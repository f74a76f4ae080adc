"""Oracles that hold for any bytes, tried by hypothesis in the suite and by a coverage-guided fuzzer for hours."""
