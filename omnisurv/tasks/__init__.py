"""Tasks: what a pre-trained core is fine-tuned for, one to a file."""
