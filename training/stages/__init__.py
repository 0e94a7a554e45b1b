"""What is learnt in which order on two processors, and the export."""
