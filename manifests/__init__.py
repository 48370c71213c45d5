"""What an archive keeps: records, parts, plans, specs and the table that says which of them exist."""
