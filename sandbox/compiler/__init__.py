"""The compiler: from a typed workflow and the facts about it to a plan."""
