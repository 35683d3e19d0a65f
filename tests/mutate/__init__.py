"""Mutation testing: small mistakes made in the sources one at a time, each of which the tests should notice."""
