"""Avro: framing, codecs, the schema registry, evolution."""
