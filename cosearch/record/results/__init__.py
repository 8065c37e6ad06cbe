"""What a run found, one typed record a file of its folder: architecture, agent, summary, family, and what its device said."""
