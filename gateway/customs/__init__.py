"""The half that never meets an agent: verify the buffer, judge every proposal, write what passed. No network."""
