"""What the tests share: cases whose bounds are known, densities written by hand, comparisons, and runs."""
