"""From proposed writes to applied ones: customs judges, and each sink is written once."""
