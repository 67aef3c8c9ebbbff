"""The Broker seam: `port` says what a broker must do; `local` and `kafka` do it."""
