"""Guards that are proven on the running fleet, and not trusted: a real fault for each, in a project of their own."""
