"""Running the past again."""
