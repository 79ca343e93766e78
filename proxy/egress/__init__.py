"""The firewall: the only process of a run that has a way out."""
