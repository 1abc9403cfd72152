"""Pages and parts of pages made from records and source."""
