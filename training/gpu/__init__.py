"""All stages on one GPU."""
