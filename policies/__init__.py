"""What is allowed, and the words for it: the ground floor that every other room stands on."""
