"""What registries tell of themselves: one module for each kind of sender, all of one shape (`format.Format`). Pure.

A notification is a hint, never a fact: it says where to look, and the source is asked what is there.
"""
