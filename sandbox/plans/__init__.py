"""What a finished plan allows: in words, as differences, as a person approved it, and what cannot be enforced."""
