"""A support desk that answers with what its help pages say."""
