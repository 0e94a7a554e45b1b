"""The architecture in plain torch, and weights as q4 stores them."""
