"""An import: upload -> chunks -> importer -> target, with a checkpoint in each transaction."""
