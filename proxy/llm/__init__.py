"""The LLM API proxy: holds the provider keys, and spends no more than the plan says."""
