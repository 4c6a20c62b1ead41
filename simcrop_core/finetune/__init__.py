"""Fine-tuning: what a pre-trained encoder is worth on the public tasks of the method."""
