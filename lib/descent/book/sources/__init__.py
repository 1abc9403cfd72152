"""What a book is made from: where things lie, chapters as text, records and where they come from."""
