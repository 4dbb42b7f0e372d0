"""What is printed of programs, scaling, plans and studies: tables, and the same as JSON-able data."""
