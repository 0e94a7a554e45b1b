"""One optimizer, Muon with AdamW, for two processors and for a GPU."""
