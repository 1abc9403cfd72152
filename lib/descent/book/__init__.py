"""From MyST chapters to a site: digest, execute, assemble, check, publish; and the command line over it."""
