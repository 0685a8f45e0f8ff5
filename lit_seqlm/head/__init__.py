"""Heads: from a trunk's hidden states to predictions of whole sequences."""
