"""The language of workflows: from YAML text to a typed workflow, or to findings with a place."""
