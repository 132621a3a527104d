"""The commands of the command line, a dataclass each; its fields are its options."""
