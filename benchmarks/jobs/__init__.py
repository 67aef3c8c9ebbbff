"""The jobs as streampipe processors. Names come from the run, as every run has a fresh group and fresh topics."""
