"""What stands before the details of the report."""

NOTES = """
## What to know before reading
"""
