"""From prompts to files: choose a model, make videos, write them with a record of what made them."""
