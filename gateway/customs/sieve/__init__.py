"""The sieve: which rows of a chunk must go through the checks one by one. It may stop too many, never too few."""
