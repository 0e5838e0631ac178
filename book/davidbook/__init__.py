"""The book's own tools: how its pages are run, built, drawn and told."""
