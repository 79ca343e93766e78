"""From a plan to the specs of volumes and containers, and to the shards of a stage. Pure: the engine executes them."""
