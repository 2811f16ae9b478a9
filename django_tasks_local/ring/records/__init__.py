"""Records in their slots: where they are, how they are ordered, read, claimed and settled."""
