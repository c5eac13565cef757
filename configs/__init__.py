"""One file per published run; see README.md."""
