"""Parsers of registries' notifications: one module per kind of sender, all of one shape (`format.Format`). Pure.

A notification is a hint, never a fact: it says which tag to check, and the source is asked what the tag is.
"""
