"""What the scripts beside this folder share: flags, the values that are read from them, runs, reports and figures."""
