"""From a checkpoint to a model file that is proven equal to it."""
