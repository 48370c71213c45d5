"""One module a group of verbs: parse, one call, print. What a verb does is a function in pipelines."""
