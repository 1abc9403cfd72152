"""From source to site: digest, execute, assemble, publish, and the command line."""
